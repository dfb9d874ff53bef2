"""Work on many images by Ray Data: on several hosts, or in several processes of this one."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import SepViTError
from .reading import Engine, Work, run_here

if TYPE_CHECKING:
    import ray

_PIECES = 8  # of a task, which is what is done again when its host is lost
_MOST_WORKERS = 1024
_CLIENT, _CLIENT_PORT = "ray://", 10001  # from outside; the port is Ray's own default
_LONGEST = 300  # characters of Ray's reason
_PATIENCE = 10  # seconds that a host has to answer


def check_workers(workers: str) -> None:
    """Refuse workers that cannot be; call it before the work.

    Parameters
    ----------
    workers : str
        A number of processes on this machine; or a cluster's address as `ray.init` takes it:
        ``"HOST:PORT"`` on one of its hosts, ``"ray://HOST:PORT"`` from outside, ``"auto"``.

    Raises
    ------
    SepViTError
        If it is neither, or Ray is not installed.
    """
    if workers.isdecimal():
        if not 1 <= int(workers) <= _MOST_WORKERS:
            raise SepViTError(f"--workers {workers}: between 1 and {_MOST_WORKERS} processes")
    elif workers != "auto" and _host_and_port(workers) is None:
        raise SepViTError(
            f"--workers {workers}: give a number of processes, or the address of a Ray cluster "
            "(HOST:PORT, ray://HOST:PORT or auto)"
        )
    if importlib.util.find_spec("ray") is None:
        raise SepViTError("--workers needs Ray; run: pip install 'sepvit-edge[ray]'")


@contextmanager
def engine_on(workers: str, threads: int) -> Iterator[Engine]:
    """Connect to a Ray cluster, or start one on this machine, while the block runs.

    What is printed in the block goes to standard error.

    Parameters
    ----------
    workers : str
        As for `check_workers`; the engine of this process if it is empty.
    threads : int
        Cores of each task.

    Yields
    ------
    Engine
        The package, the images and the current folder must have the same paths on every host.

    Raises
    ------
    SepViTError
        If there is no cluster at the address, or it has another version of Ray.
    """
    if not workers:
        yield run_here
        return
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    import ray

    how: dict[str, Any] = {}
    if workers.isdecimal():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent from here
        how = {"num_cpus": int(workers) * threads, "include_dashboard": False}
    else:
        _check_answers(workers)
    address = "local" if workers.isdecimal() else workers
    share_out = _from_outside if workers.startswith(_CLIENT) else _share_out

    def engine(items: Sequence[Any], work: Work, size: int) -> Iterator[Any]:
        job = _Job(__version__, os.getcwd(), pickle.dumps(work))
        pieces = [pickle.dumps(items[i : i + size]) for i in range(0, len(items), size)]
        try:
            for done, sentence in share_out(pieces, job, threads):
                if sentence:
                    raise SepViTError(sentence)
                yield pickle.loads(done)
        except (ray.exceptions.RayError, ImportError) as error:
            *_, last = filter(None, str(error).splitlines())
            raise SepViTError(
                f"Ray ended: {last.strip()} (every host needs sepvit-edge {__version__} and the "
                "package's runtime)"
            ) from None

    with redirect_stdout(sys.stderr):  # Ray tells of lost hosts on standard output
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **how)
        except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
            reason = shorten(str(error), _LONGEST)  # over several lines
            raise SepViTError(f"--workers {workers}: {reason}") from None
        try:
            yield engine
        finally:
            ray.shutdown()


def _share_out(pieces: Sequence[bytes], job: _Job, threads: int) -> Iterator[tuple[bytes, str]]:
    """Run a job on pieces by Ray Data, from a process within the cluster; yield in order."""
    if not pieces:
        return
    import ray

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows = [{"piece": piece} for piece in pieces]
    data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // _PIECES))
    for row in data.map(_Task(ray.put(job)), num_cpus=threads).iter_rows():
        yield row["done"], row["error"]


def _from_outside(pieces: Sequence[bytes], job: _Job, threads: int) -> Iterator[tuple[bytes, str]]:
    """Do the same on the cluster's head: Ray Data does not run in a process outside."""
    import ray

    on_head = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
    inside = ray.remote(**on_head)(_Inside).remote(pieces, job, threads)
    while some := ray.get(inside.take.remote(_PIECES)):
        yield from some


class _Inside:
    """Results of a job, a few at a time."""

    def __init__(self, pieces: Sequence[bytes], job: _Job, threads: int) -> None:
        self._results = _share_out(pieces, job, threads)

    def take(self, count: int) -> list[tuple[bytes, str]]:
        return list(islice(self._results, count))


@dataclass(frozen=True)
class _Job:
    """What a process needs once, for all of its tasks."""

    version: str
    folder: str
    work: bytes


@dataclass(frozen=True)
class _Task:
    """What Ray runs on each row, in any process of any host."""

    job: ray.ObjectRef[_Job]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            work = _open(self.job)
            read = [work.read(item) for item in pickle.loads(row["piece"])]
            return {"done": pickle.dumps(work.run(read)), "error": ""}
        except SepViTError as error:
            return {"done": b"", "error": f"{socket.gethostname()}: {error}"}


@lru_cache(maxsize=1)
def _open(reference: ray.ObjectRef[_Job]) -> Work:
    """Open the work of a job, once in each process."""
    import ray

    job = ray.get(reference)
    if job.version != __version__:
        raise SepViTError(f"sepvit-edge {__version__} is installed there, and {job.version} here")
    with suppress(OSError):  # absolute paths need no folder
        os.chdir(job.folder)
    return pickle.loads(job.work)


def _host_and_port(address: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(ray://)?(\[[0-9a-fA-F:]+\]|[^\s:/@]+)(?::(\d{1,5}))?", address)
    if found is None or not (found[1] or found[3]):
        return None
    return found[2].strip("[]"), int(found[3] or _CLIENT_PORT)


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself waits for minutes."""
    place = _host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise SepViTError(f"--workers {address}: nothing answers there: {error}") from None
