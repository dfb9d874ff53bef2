"""Ways to a device. Whatever the way, what comes back is the same document.

`open_host` gives a place where Python runs: this machine, a board by SSH, a place of a labgrid
laboratory. `measure` puts the package and the runner there and follows the runner's lines. A phone
has no Python: there the app measures, and `adb` and `app_file` fetch its document.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...errors import SepViTError
from ...files import file_sha256
from ...package.folder import Package
from ...package.manifest import MANIFEST
from ..devices import Connection, LabgridConnection, LocalConnection, SSHConnection
from ..document import Profile, read_profile
from ..runner_file import NAME, write_runner

_BEAT_S = 5  # the runner ends when it hears nothing for 30 s
_SILENCE_S = 400  # longer than any phase of the runner may take


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes
    ----------
    package : Package
        What is measured.
    arguments : list of str
        For the runner, beside the package and the kit.
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
        """What an environment for this package's runtime needs."""
        runtime = self.package.manifest.runtime
        return [f"{runtime.name}>={runtime.minimum},<{runtime.below}", "numpy", "pillow"]


def missing_library(name: str) -> SepViTError:
    """Name the extra that brings a library."""
    return SepViTError(f"{name} is not installed; run: pip install 'sepvit-edge[profile]'")


class ConnectionLost(Exception):
    """The device does not answer any more; the sentence says how that was noticed."""


class Process(Protocol):
    """A process on a device."""

    async def read(self) -> bytes:
        """Wait for more of its standard output; empty at the end. Raises `ConnectionLost`."""
        ...

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        ...

    async def leave(self) -> tuple[int | None, str]:
        """Close its input, wait for its end; exit status (None if unknown) and standard error."""
        ...


class Host(Protocol):
    """A device on which Python runs."""

    async def place(self, files: Mapping[str, Path], name: str) -> str:
        """Have files, by their names, in one folder on the device, and return its path there."""
        ...

    async def bootstrap(self, name: str, requirements: list[str]) -> None:
        """Make an environment of this name on the device, unless it is there."""
        ...

    async def start(self, name: str, arguments: list[str]) -> Process:
        """Start Python, in the environment of this name where there is one."""
        ...


Step = Callable[[str], None]


def open_host(connection: Connection) -> AbstractAsyncContextManager[Host]:
    """Connect to a device on which Python runs.

    Raises
    ------
    SepViTError
        If the device cannot be reached; the sentence says why.
    """
    if isinstance(connection, LocalConnection):
        from .local import LocalHost

        return LocalHost(connection)
    if isinstance(connection, SSHConnection):
        from .ssh import SSHHost

        return SSHHost(connection)
    if isinstance(connection, LabgridConnection):
        from .labgrid import LabgridHost

        return LabgridHost(connection)
    raise SepViTError(f"no Python runs on a device that is reached by {connection.kind}")


async def measure(host: Host, job: Job, bootstrap: bool, step: Step) -> Profile:
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
    step("copying what the device lacks")
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
    """Read a runner's lines to the end; see `measure`."""
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
    """Objects that the runner writes, a line each; what runtimes print in between is skipped."""
    pending = b""
    while True:
        try:
            data = await asyncio.wait_for(process.read(), _SILENCE_S)
        except asyncio.TimeoutError:
            raise ConnectionLost(f"the device said nothing for {_SILENCE_S} s") from None
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
    """Let the runner hear that somebody waits for it."""

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
