"""Places of a labgrid laboratory: acquired, used over the SSH driver, and always released.

labgrid knows where the board is, how to reach it (also through its exporter), and its user.
Acquiring and releasing go through `labgrid-client`, its stable interface; its library, whose calls
block, works in a thread.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ...errors import SepViTError
from ..devices import LabgridConnection
from .interface import missing_library
from .local import LocalProcess
from .remote import COPY_S, Environment, disk_full, place

try:
    import labgrid
    import yaml
    from labgrid.driver.exception import ExecutionError
except ModuleNotFoundError:
    raise missing_library("labgrid") from None

_T = TypeVar("_T")


class LabgridHost:
    """See `sepvit_edge.profiling.connections.interface.Host`."""

    def __init__(self, connection: LabgridConnection) -> None:
        self._facts = connection
        self._environment = Environment(connection.folder, connection.python)
        self._name = f"place {connection.place}"
        self._scratch: tempfile.TemporaryDirectory[str]
        self._labgrid: labgrid.Environment
        self._ssh: Any
        # One thread, since labgrid's event loop belongs to the one that made it.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="labgrid")

    async def __aenter__(self) -> LabgridHost:
        await self._client("acquire")
        try:
            self._ssh = await self._thread(self._activate)
        except BaseException as error:
            await self._client("release")
            if isinstance(error, Exception) and not isinstance(error, SepViTError):
                raise SepViTError(f"{self._name} cannot be reached: {_first_line(error)}") from None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._thread(self._labgrid.cleanup)
        finally:
            self._scratch.cleanup()
            self._executor.shutdown(wait=False)
            await self._client("release")

    async def _client(self, command: str) -> None:
        """Run labgrid-client for this place."""
        beside = Path(sys.executable).with_name("labgrid-client")
        program = str(beside) if beside.exists() else shutil.which("labgrid-client")
        if program is None:
            raise missing_library("labgrid-client")
        where = ["-x", self._facts.coordinator] if self._facts.coordinator else []
        process = await asyncio.create_subprocess_exec(
            program,
            *where,
            "-p",
            self._facts.place,
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), self._facts.timeout_s)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
            raise SepViTError(
                f"labgrid's coordinator did not {command} the place in time"
            ) from None
        if process.returncode != 0:
            said = out.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise SepViTError(f"labgrid cannot {command} {self._name}: {said[-1]}")

    async def _thread(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, function, *arguments
        )

    def _activate(self) -> Any:
        """Write labgrid's configuration, and open the place's SSH driver."""
        self._scratch = tempfile.TemporaryDirectory(prefix="sepvit-edge-")
        options = {}
        if self._facts.coordinator:
            options["coordinator_address"] = self._facts.coordinator
        driver: dict[str, Any] = {"connection_timeout": self._facts.timeout_s}
        if self._facts.key:
            driver["keyfile"] = str(Path(self._facts.key).expanduser())
        target = {
            "resources": {"RemotePlace": {"name": self._facts.place}},
            "drivers": {"SSHDriver": driver},
        }
        file = Path(self._scratch.name) / "environment.yaml"
        file.write_text(yaml.safe_dump({"options": options, "targets": {"main": target}}))
        self._labgrid = labgrid.Environment(str(file))
        return self._labgrid.get_target("main").get_driver("SSHDriver")

    async def _run(self, command: str, what: str, timeout_s: float) -> str:
        """Run a command to its end and return its output."""
        try:
            out, err, status = await self._thread(lambda: self._ssh.run(command, timeout=timeout_s))
        except subprocess.TimeoutExpired:
            raise SepViTError(f"{self._name} did not answer in time; is it overloaded?") from None
        except ExecutionError as error:
            raise SepViTError(f"{self._name} is lost: {_first_line(error)}") from None
        if status != 0:
            said = [line for line in [*out, *err] if line.strip()] or ["no reason"]
            raise SepViTError(f"{self._name} cannot {what}: {said[-1]}")
        return "\n".join(out)

    async def place(self, files: Mapping[str, Path], name: str) -> str:
        """Copy the files that the device lacks; the hashes of all files are compared."""

        async def copy(needed: Mapping[str, Path]) -> None:
            for target, source in needed.items():
                try:
                    put = self._thread(self._ssh.put, str(source), target)
                    await asyncio.wait_for(put, COPY_S)
                except ExecutionError as error:
                    raise disk_full(self._name, _first_line(error)) from None

        return await place(files, name, self._name, self._environment, self._run, copy)

    async def bootstrap(self, name: str, requirements: list[str]) -> None:
        """Make a virtual environment with the runtime."""
        command = self._environment.bootstrap(name, requirements)
        await self._run(command, f"install {requirements[0]}", COPY_S)

    async def start(self, name: str, arguments: list[str]) -> LocalProcess:
        """Start the runner over the driver's connection, with pipes instead of a terminal."""
        service = self._ssh.networkservice
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by the process's `leave`)
        process = await asyncio.create_subprocess_exec(
            "ssh",
            "-x",
            *self._ssh.ssh_prefix,
            "-p",
            str(service.port),
            "-l",
            service.username,
            service.address,
            self._environment.start(name, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        return LocalProcess(process, errors)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
