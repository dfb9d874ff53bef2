"""The machine that runs the command, or an emulator on it, in a separate process."""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from ...errors import SepViTError
from ..devices import LocalConnection

_LEAVING_S = 20


class LocalHost:
    """See `sepvit_edge.profiling.connections.interface.Host`."""

    def __init__(self, connection: LocalConnection) -> None:
        given = [str(Path(word).expanduser()) for word in connection.python]
        self._python = given or [sys.executable]
        # The runner's own phases need the emulator too.
        self._arguments = ["--python", shlex.join(given)] if given else []

    async def __aenter__(self) -> LocalHost:
        for word in self._python:
            if word.startswith("/") and not Path(word).exists():
                raise SepViTError(f"there is no {word}; the device's notes say how it is set up")
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def place(self, files: Mapping[str, Path], name: str) -> str:
        """Return the folder that the files are in."""
        first, path = next(iter(files.items()))
        return str(path.absolute()).removesuffix(f"/{first}")

    async def bootstrap(self, name: str, requirements: list[str]) -> None:
        """Refuse, since this environment belongs to the user."""
        raise SepViTError(
            f"--bootstrap is for other devices; here, run: pip install '{requirements[0]}'"
        )

    async def start(self, name: str, arguments: list[str]) -> LocalProcess:
        """Start this Python, or the emulator's."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by the process's `leave`)
        process = await asyncio.create_subprocess_exec(
            *self._python,
            *arguments,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        return LocalProcess(process, errors)


class LocalProcess:
    """See `sepvit_edge.profiling.connections.interface.Process`."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._process, self._errors = process, errors

    async def read(self) -> bytes:
        """Wait for output."""
        assert self._process.stdout is not None
        return await self._process.stdout.read(1 << 16)

    def write(self, data: bytes) -> None:
        """Write to its input, if it still listens."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(data)

    async def leave(self) -> tuple[int | None, str]:
        """Close its input, which ends an attended runner; kill it if it stays."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _LEAVING_S)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")
        self._errors.close()
        return self._process.returncode, said
