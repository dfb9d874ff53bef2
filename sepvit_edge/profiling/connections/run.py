"""One run of the runner on a host: files are copied there, the runner's lines are read."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import SepViTError
from ...files import file_sha256
from ...package.folder import Package
from ...package.manifest import MANIFEST
from ..document import Profile, read_profile
from ..runner_file import NAME, write_runner
from .interface import ConnectionLost, Host, Process, Step

_BEAT_S = 5  # the runner ends when it hears nothing for 30 s
_SILENCE_S = 400  # longer than any phase of the runner may take


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
    files = {name: job.package.path / name for name in _names(job.package)}
    package = await host.place(files, f"packages/{manifest.digest[:16]}")
    arguments = [package, *job.arguments, "--stream", "--attended"]
    if job.kit is not None:
        files = {path.name: path for path in sorted(job.kit.iterdir())}
        arguments += ["--kit", await host.place(files, f"kits/{manifest.digest[:16]}")]
    if bootstrap:
        step("making an environment on the device")
        await host.bootstrap(job.environment, job.requirements)
    with tempfile.TemporaryDirectory(prefix="sepvit-edge-") as scratch:
        file = write_runner(Path(scratch))
        folder = await host.place({NAME: file}, f"runner/{file_sha256(file)[:16]}")
        process = await host.start(job.environment, [f"{folder}/{NAME}", *arguments])
        return await follow(process, step)


def _names(package: Package) -> list[str]:
    return [MANIFEST, *(file.path for file in package.manifest.files)]


async def follow(process: Process, step: Step) -> Profile:
    """Read a runner's lines to the end; see `run_on_host`."""
    document: dict[str, Any] | None = None
    points: list[dict[str, Any]] = []
    lost = ""
    async with _heartbeat(process):
        try:
            async for event in _events(process):
                if "progress" in event:
                    step(event["progress"])
                elif "point" in event:
                    points.append(event["point"])
                elif "document" in event:
                    document = event["document"]
        except ConnectionLost as error:
            lost = str(error)
    status, said = await process.leave()
    if document is not None and (document["complete"] or (status == 1 and not lost)):
        return read_profile(document, "the device")
    sentence = _last_sentence(said)
    if not lost and status == 2:
        raise SepViTError(sentence)
    if not lost:
        ending = "without a status" if status is None else f"with status {status}"
        lost = f"the runner ended {ending}: {sentence}" if sentence else f"it ended {ending}"
    if document is None or "latency" not in document:
        raise SepViTError(f"nothing was measured: {lost}")
    if points and "sustained" not in document:
        requested = points[-1]["time_s"]
        document["sustained"] = {"requested_s": requested, "points": points}
    document.update(complete=False, incomplete_reason=lost)
    return read_profile(document, "the device")


async def _events(process: Process) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects that the runner writes, one per line; other output is skipped."""
    pending = b""
    while True:
        try:
            data = await asyncio.wait_for(process.read(), _SILENCE_S)
        except asyncio.TimeoutError:
            raise ConnectionLost(f"the device sent nothing for {_SILENCE_S} s") from None
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


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
