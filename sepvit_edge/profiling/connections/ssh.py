"""Boards by SSH, with asyncssh.

Of the SSH libraries asyncssh is the one that reads OpenSSH's own configuration and known_hosts,
checks that the other side is alive, gives each wait a limit, and raises exceptions that tell an
unreachable host from a wrong key and from a host key that changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import SepViTError
from ..devices import SSHConnection
from .interface import ConnectionLost, missing_library
from .remote import COPY_S, Environment, disk_full, place

try:
    import asyncssh
except ModuleNotFoundError:
    raise missing_library("asyncssh") from None

_LEAVING_S = 20
_ALIVE_S, _ALIVE_COUNT = 5, 3
_LONGEST_OUTPUT = 16 << 20  # characters that a command may print


class SSHHost:
    """See `sepvit_edge.profiling.connections.interface.Host`."""

    def __init__(self, connection: SSHConnection) -> None:
        self._facts = connection
        self._environment = Environment(connection.folder, connection.python)
        self._name = connection.host
        self._connection: asyncssh.SSHClientConnection

    async def __aenter__(self) -> SSHHost:
        facts = self._facts
        options: dict[str, Any] = {}
        if facts.port is not None:
            options["port"] = facts.port
        if facts.user is not None:
            options["username"] = facts.user
        if facts.key is not None:
            options["client_keys"] = [str(Path(facts.key).expanduser())]
            options["agent_path"] = None
        if facts.known_hosts is not None:
            options["known_hosts"] = str(Path(facts.known_hosts).expanduser())
        try:
            self._connection = await asyncssh.connect(
                facts.host,
                connect_timeout=facts.timeout_s,
                login_timeout=facts.timeout_s,
                keepalive_interval=_ALIVE_S,
                keepalive_count_max=_ALIVE_COUNT,
                **options,
            )
        except asyncssh.HostKeyNotVerifiable:
            raise SepViTError(
                f"the host key of {self._name} is not the one in known_hosts, or none is there; "
                f"if it may be trusted, run: ssh-keygen -R {self._name}, then: ssh {self._name}"
            ) from None
        except asyncssh.PermissionDenied:
            raise SepViTError(
                f"{self._name} does not accept the key; copy it there with ssh-copy-id, or name "
                "the right key and user in the device's [connection]"
            ) from None
        except (asyncssh.KeyImportError, FileNotFoundError) as error:
            raise SepViTError(f"the key for {self._name} cannot be read: {error}") from None
        except (asyncio.TimeoutError, OSError, asyncssh.Error) as error:
            reason = str(error) or f"no answer within {facts.timeout_s:.0f} s"
            raise SepViTError(f"{self._name} cannot be reached: {reason}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connection.close()
        try:
            await asyncio.wait_for(self._connection.wait_closed(), 5)
        except asyncio.TimeoutError:
            self._connection.abort()

    async def _run(self, command: str, what: str, timeout_s: float) -> str:
        """Run a command to its end and return its output."""
        with _sentences(self._name):
            process = await self._connection.create_process(
                command, encoding="utf-8", errors="replace"
            )
            streams = [_whole(stream, self._name) for stream in (process.stdout, process.stderr)]
            try:
                out, err = await asyncio.wait_for(asyncio.gather(*streams), timeout_s)
                await asyncio.wait_for(process.wait_closed(), timeout_s)
            finally:
                process.close()
        if process.exit_status != 0:
            said = f"{out}\n{err}".strip().splitlines()
            raise SepViTError(f"{self._name} cannot {what}: {said[-1] if said else 'no reason'}")
        return str(out)

    async def place(self, files: Mapping[str, Path], name: str) -> str:
        """Copy the files that the device lacks by SFTP; the hashes of all files are compared."""

        async def copy(needed: Mapping[str, Path]) -> None:
            with _sentences(self._name):
                async with self._connection.start_sftp_client() as sftp:
                    for target, source in needed.items():
                        put = sftp.put(str(source), f"{target}.part")
                        await asyncio.wait_for(put, COPY_S)
                        await sftp.posix_rename(f"{target}.part", target)

        return await place(files, name, self._name, self._environment, self._run, copy)

    async def bootstrap(self, name: str, requirements: list[str]) -> None:
        """Make a virtual environment with the runtime."""
        command = self._environment.bootstrap(name, requirements)
        await self._run(command, f"install {requirements[0]}", COPY_S)

    async def start(self, name: str, arguments: list[str]) -> SSHProcess:
        """Start the runner; without a terminal, so that a broken connection ends its input."""
        command = self._environment.start(name, arguments)
        with _sentences(self._name):
            process = await self._connection.create_process(command, encoding=None)
        return SSHProcess(process, self._name)


class SSHProcess:
    """See `sepvit_edge.profiling.connections.interface.Process`."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], host: str) -> None:
        self._process, self._host = process, host
        self._errors = asyncio.create_task(process.stderr.read())

    async def read(self) -> bytes:
        """Wait for output."""
        try:
            data: bytes = await self._process.stdout.read(1 << 16)
        except (asyncssh.Error, OSError) as error:
            raise ConnectionLost(f"the connection to {self._host} broke: {error}") from None
        if not data and self._process.is_closing() and self._process.exit_status is None:
            with suppress(asyncio.TimeoutError, asyncssh.Error):
                await asyncio.wait_for(self._process.wait_closed(), 5)
            if self._process.exit_status is None and self._process.exit_signal is None:
                raise ConnectionLost(f"the connection to {self._host} broke")
        return data

    def write(self, data: bytes) -> None:
        """Write to its input, if the connection still stands."""
        with suppress(OSError, asyncssh.Error):
            if not self._process.stdin.is_closing():
                self._process.stdin.write(data)

    async def leave(self) -> tuple[int | None, str]:
        """Close its input, which ends an attended runner."""
        with suppress(OSError, asyncssh.Error):
            self._process.stdin.write_eof()
        try:
            await asyncio.wait_for(self._process.wait_closed(), _LEAVING_S)
            said = (await asyncio.wait_for(self._errors, _LEAVING_S)).decode(errors="replace")
        except (asyncio.TimeoutError, OSError, asyncssh.Error):
            self._errors.cancel()
            said = ""
        status = self._process.returncode
        return status, said


async def _whole(stream: asyncssh.SSHReader[str], host: str) -> str:
    """Read what a command prints, to its end."""
    pieces: list[str] = []
    length = 0
    while piece := await stream.read(1 << 16):
        pieces.append(piece)
        length += len(piece)
        if length > _LONGEST_OUTPUT:
            raise SepViTError(
                f"{host} printed more than {_LONGEST_OUTPUT >> 20} MB for one command; does its "
                "shell print without an end?"
            )
    return "".join(pieces)


@contextmanager
def _sentences(host: str) -> Iterator[None]:
    """Turn errors of asyncssh into sentences."""
    try:
        yield
    except (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded) as error:
        raise disk_full(host, str(error)) from None
    except asyncssh.SFTPError as error:
        raise SepViTError(f"copying to {host} failed: {error}") from None
    except (asyncio.TimeoutError, asyncssh.TimeoutError):
        raise SepViTError(f"{host} did not answer in time; is it overloaded?") from None
    except (asyncssh.Error, OSError) as error:
        raise SepViTError(f"the connection to {host} broke: {error}") from None
