"""One run of the runner on a host: files are copied there, the runner's lines are read."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import SepViTError
from ...files import file_sha256
from ...package.folder import Package
from ...package.manifest import MANIFEST, Manifest
from ..document import Profile
from ..pairs import Pairs, read_pairs
from ..runner_file import NAME, write_runner
from .answers import Answer, listen, read_answer, read_rows
from .interface import Host, Process, Step

_BEAT_S = 5  # the runner ends when it hears nothing for 30 s


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes
    ----------
    package : Package
        Package to measure.
    arguments : list of str
        Arguments of the runner, beside the package and the kit.
    kit : Path or None
        Programs that the host lowered for this package (`sepvit_edge.profiling.kit`).
    """

    package: Package
    arguments: list[str] = field(default_factory=list)
    kit: Path | None = None

    @property
    def environment(self) -> str:
        """Name of an environment for this package's runtime."""
        runtime = self.package.manifest.runtime
        return f"{runtime.name}-{runtime.minimum}-{runtime.below}"

    @property
    def requirements(self) -> list[str]:
        """Distributions that an environment for this package's runtime needs."""
        runtime = self.package.manifest.runtime
        return [f"{runtime.name}>={runtime.minimum},<{runtime.below}", "numpy", "pillow"]


def option_words(options: Mapping[str, object]) -> list[str]:
    """Return options as words of a command; one whose value is None is left out."""
    return [str(x) for pair in options.items() if pair[1] is not None for x in pair]


async def run_on_host(host: Host, job: Job, bootstrap: bool, step: Step) -> Profile:
    """Run the runner on a host.

    Returns
    -------
    Profile
        Marked incomplete where the device went away in the middle, or its golden check failed.

    Raises
    ------
    SepViTError
        If nothing could be measured.
    """
    manifest = job.package.manifest
    step("copying files to the device")
    package = await _place(host, job.package)
    arguments = [package, *job.arguments, "--stream", "--attended"]
    if job.kit is not None:
        files = {path.name: path for path in sorted(job.kit.iterdir())}
        arguments += ["--kit", await host.place(files, f"kits/{manifest.digest[:16]}")]
    await _make_environment(host, [job], bootstrap, step)
    async with _runner(host, job.environment, arguments) as process:
        return await follow(process, step, manifest)


def _names(package: Package) -> list[str]:
    return [MANIFEST, *(file.path for file in package.manifest.files)]


async def follow(process: Process, step: Step, manifest: Manifest) -> Profile:
    """Read a runner's lines to the end; see `run_on_host`."""
    answer, status, said = await _hear(process, step)
    document, points, lost = answer.document, answer.points, answer.lost
    if document is not None and (document.get("complete") is True or (status == 1 and not lost)):
        return read_answer(document, manifest, "the device")
    lost = lost or _ending(status, said)
    if document is None or "latency" not in document:
        raise SepViTError(f"nothing was measured: {lost}")
    if points and "sustained" not in document:
        requested = points[-1]["time_s"]
        document["sustained"] = {"requested_s": requested, "points": points}
    document.update(complete=False, incomplete_reason=lost)
    return read_answer(document, manifest, "the device")


def _ending(status: int | None, said: str) -> str:
    """Say how a runner ended; its own refusal is raised."""
    sentence = _last_sentence(said)
    if status == 2:
        raise SepViTError(sentence)
    ending = "without a status" if status is None else f"with status {status}"
    return f"the runner ended {ending}: {sentence}" if sentence else f"it ended {ending}"


async def pairs_on_host(
    host: Host, jobs: tuple[Job, Job], arguments: list[str], bootstrap: bool, step: Step
) -> Pairs:
    """Let the runner on a host time two packages in turn.

    Raises
    ------
    SepViTError
        If nothing could be measured.
    """
    step("copying files to the device")
    folders = [await _place(host, job.package) for job in jobs]
    environment = await _make_environment(host, jobs, bootstrap, step)
    arguments = [folders[0], "--against", folders[1], *arguments, "--stream", "--attended"]
    async with _runner(host, environment, arguments) as process:
        answer, status, said = await _hear(process, step)
    if answer.pairs is None or answer.lost:
        raise SepViTError(f"nothing was measured: {answer.lost or _ending(status, said)}")
    pairs = read_pairs(answer.pairs, "the device")
    for side, job in zip((pairs.first, pairs.second), jobs, strict=True):
        if side.package.digest != job.package.manifest.digest:
            raise SepViTError("the device timed other packages than these; run it again")
    return pairs


async def outputs_on_host(
    host: Host, job: Job, pixels: np.ndarray, bootstrap: bool, step: Step
) -> np.ndarray:
    """Let the runner on a host run a classifier on images.

    Parameters
    ----------
    host : Host
        The device.
    job : Job
        Package, and arguments of the runner.
    pixels : numpy.ndarray
        uint8 (N, image_size, image_size, 3).
    bootstrap : bool
        Whether to make an environment with the runtime there.
    step : callable
        Called with the name of each step.

    Returns
    -------
    numpy.ndarray
        Logits, float32 (N, num_classes).

    Raises
    ------
    SepViTError
        If the device went away, or sent something else.
    """
    package = await _place(host, job.package)
    environment = await _make_environment(host, [job], bootstrap, step)
    with tempfile.TemporaryDirectory(prefix="sepvit-edge-") as scratch:
        file = Path(scratch) / "pixels.npy"
        np.save(file, pixels)
        folder = await host.place({file.name: file}, f"pixels/{file_sha256(file)[:16]}")
        arguments = [package, "--outputs", f"{folder}/{file.name}", *job.arguments]
        arguments += ["--stream", "--attended"]
        async with _runner(host, environment, arguments) as process:
            answer, status, said = await _hear(process, step)
    if answer.lost or status != 0:
        lost = answer.lost or _ending(status, said)
        raise SepViTError(f"{lost}; repeat the command to continue where it ended")
    return read_rows(answer.rows, len(pixels), job.package.manifest.model.num_classes)


async def _place(host: Host, package: Package) -> str:
    """Copy a package to the device, and return its folder there."""
    files = {name: package.path / name for name in _names(package)}
    return await host.place(files, f"packages/{package.manifest.digest[:16]}")


async def _make_environment(host: Host, jobs: Sequence[Job], bootstrap: bool, step: Step) -> str:
    """Return the name of the environment for some packages; make it on the device if asked to."""
    name = "+".join(dict.fromkeys(job.environment for job in jobs))
    if bootstrap:
        step("making an environment on the device")
        needed = dict.fromkeys(each for job in jobs for each in job.requirements)
        await host.bootstrap(name, list(needed))
    return name


async def _hear(process: Process, step: Step) -> tuple[Answer, int | None, str]:
    """Read a runner to its end; return what it wrote, its status and its standard error."""
    async with _heartbeat(process):
        answer = await listen(process, step)
    status, said = await process.leave()
    return answer, status, said


@asynccontextmanager
async def _runner(host: Host, environment: str, arguments: list[str]) -> AsyncIterator[Process]:
    """Start the runner on a host."""
    with tempfile.TemporaryDirectory(prefix="sepvit-edge-") as scratch:
        file = write_runner(Path(scratch))
        folder = await host.place({NAME: file}, f"runner/{file_sha256(file)[:16]}")
        yield await host.start(environment, [f"{folder}/{NAME}", *arguments])


@asynccontextmanager
async def _heartbeat(process: Process) -> AsyncIterator[None]:
    """Send the runner a byte every few seconds, so that it keeps running."""

    async def beat() -> None:
        while True:
            process.write(b".")
            await asyncio.sleep(_BEAT_S)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await task


def _last_sentence(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    ours = [line.removeprefix("runner: ") for line in lines if line.startswith("runner: ")]
    return (ours or lines or [""])[-1]
