"""Writing a folder so that it appears whole or not at all."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import SepViTError
from .manifest import MANIFEST

_FULL_BELOW = 1 << 16  # bytes
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_CLAIM = "host"  # name of the file in which a host says that it is writing
_SIGN_S, _SILENT_S = 30, 300  # between signs of life of a host, and when one is taken for dead


@contextmanager
def replacing(destination: Path, force: bool) -> Iterator[Path]:
    """Fill a folder beside `destination`, and move it there when the block succeeds.

    An interrupted block leaves at `destination` what was there. One process at a time writes a
    destination, also where several containers or hosts share the folder. What a killed process left
    is removed by the next one.

    Parameters
    ----------
    destination : Path
        Where the folder goes.
    force : bool
        Whether to replace a package that is there.

    Yields
    ------
    Path
        The folder to fill.

    Raises
    ------
    SepViTError
        If `destination` exists and `force` is false, cannot be written, or is being written.
    """
    destination = destination.absolute()
    check_destination(destination, force)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _locked(destination) as room:
        _tidy(destination, room)
        check_destination(destination, force)  # it may have been put back
        partial = room / "package"
        partial.mkdir()
        try:
            yield partial
            _check_content(destination, force)  # something may have appeared meanwhile
            _swap(partial, destination, room / "previous")
        except Exception as error:
            # Every runtime reports a full disk in its own words.
            if partial.exists() and shutil.disk_usage(partial).free < _FULL_BELOW:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination)) from error
            raise


def check_destination(destination: Path, force: bool) -> None:
    """Refuse a destination that cannot be written or must not be replaced; leave nothing there.

    Raises
    ------
    SepViTError
        If the destination exists and `force` is false, is not a package, is the working folder or
        above it, or a folder cannot be made there.
    """
    destination = destination.absolute()
    if destination.name in ("", "..") or destination in (Path.cwd(), *Path.cwd().parents):
        raise SepViTError(f"{destination} is the working folder or above it; name a folder in it")
    try:
        _check_content(destination, force)
        missing = [parent for parent in destination.parents if not parent.exists()]
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            # A name somewhat longer than those of the folder and its lock.
            prefix = f".{destination.name}."
            with tempfile.TemporaryDirectory(dir=destination.parent, prefix=prefix):
                pass
        finally:
            for parent in missing:
                with suppress(OSError):  # not made, or another process has filled it
                    parent.rmdir()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = f"{error.filename} is not a folder"
        raise SepViTError(
            f"{destination} cannot be written: {reason}; give another --output"
        ) from None


def _check_content(destination: Path, force: bool) -> None:
    if not destination.exists() and not destination.is_symlink():
        return
    if not force:
        raise SepViTError(f"{destination} exists; give --force to replace it, or another --output")
    if not destination.is_dir() or destination.is_symlink():
        raise SepViTError(f"{destination} is not a folder; give another --output")
    if any(destination.iterdir()) and not (destination / MANIFEST).is_file():
        raise SepViTError(
            f"{destination} is not a SepViT-Edge package; refusing to overwrite it, give another "
            "--output"
        )


@contextmanager
def _locked(destination: Path) -> Iterator[Path]:
    """Make a hidden folder beside the destination, and keep other processes out of it.

    A process number would not do: in a container every process may be number 1, and those of other
    containers are not seen.
    """
    room = destination.parent / f".{destination.name}.partial"
    room.mkdir(exist_ok=True)
    lock = FileLock(room / "lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, FileNotFoundError):  # held, or just now given back
        raise SepViTError(
            f"another process is writing {destination}; wait until it has ended, or give another "
            "--output"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise SepViTError(
            f"the disk of {destination} cannot lock files ({error.strerror}); give an --output on "
            "another one"
        ) from None
    try:
        _refuse_another_host(room, destination)
        try:
            with _signs_of_life(room):
                yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)
    finally:
        lock.release()


def _refuse_another_host(room: Path, destination: Path) -> None:
    """Keep out of a room of another host: the locks of some shared disks hold on one host only."""
    claim = room / _CLAIM
    if not claim.exists() or claim.read_text(errors="replace") == _host():
        return
    with tempfile.NamedTemporaryFile(dir=room) as now:  # by the clock of the disk
        silent_s = os.stat(now.name).st_mtime - claim.stat().st_mtime
    if silent_s < _SILENT_S:
        raise SepViTError(
            f"another host is writing {destination}, or has crashed there less than "
            f"{_SILENT_S // 60} minutes ago; wait, or give another --output"
        )


@contextmanager
def _signs_of_life(room: Path) -> Iterator[None]:
    """Tell other hosts, again and again, that this one is writing in a room."""
    claim = room / _CLAIM
    claim.write_text(_host())
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_SIGN_S):
            with suppress(OSError):
                os.utime(claim)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _host() -> str:
    """Return what tells this run of this host from others; containers on it have the same."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


def _tidy(destination: Path, room: Path) -> None:
    """Put back or remove what killed processes left, of this version or an earlier one."""
    olds, halves = [room / "previous"], [room / "package"]
    for path in destination.parent.iterdir():
        match = re.fullmatch(r"\.(.*)\.(partial|previous)-\d+", path.name, re.DOTALL)
        if match and match[1] == destination.name:
            (olds if match[2] == "previous" else halves).append(path)
    for old in olds:
        if old.is_dir() and not destination.exists():
            os.rename(old, destination)  # killed between the two renames
    for path in (*olds, *halves):
        shutil.rmtree(path, ignore_errors=True)


def _swap(partial: Path, destination: Path, previous: Path) -> None:
    """Move a new folder to its place; the old one goes, or comes back if that fails."""
    try:
        if destination.exists():
            os.rename(destination, previous)
        os.rename(partial, destination)
    finally:
        if previous.exists() and not destination.exists():
            os.rename(previous, destination)
