"""Commands for a POSIX shell on a device, for every library that carries them there."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import SepViTError
from ...files import file_sha256

_LOOK_S = 120
COPY_S = 1200  # time limit for copying one file
# Runs a command to its end (command, what it does, seconds that it may take), gives its output.
Run = Callable[[str, str, float], Awaitable[str]]
# Copies files to paths on the device.
Copy = Callable[[Mapping[str, Path]], Awaitable[None]]

# Python on the device: makes a folder in the home folder, prints its files and the free space.
_LOOK = """
import hashlib, json, os, sys
folder = os.path.join(os.path.expanduser("~"), sys.argv[1])
os.makedirs(folder, exist_ok=True)
hashes = {}
for name in os.listdir(folder):
    path = os.path.join(folder, name)
    if os.path.isfile(path):
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
        hashes[name] = digest.hexdigest()
disk = os.statvfs(folder)
free = disk.f_bavail * disk.f_frsize
print(json.dumps({"folder": folder, "free": free, "sha256": hashes}))
"""


class Look(BaseModel):
    """What a device says about a folder.

    Attributes
    ----------
    folder : str
        Its absolute path.
    free : int
        Bytes that are free on its disk.
    sha256 : dict
        Hashes of its files by name.
    """

    model_config = ConfigDict(strict=True)

    folder: str = Field(pattern=r"^/[^\x00-\x1f]*$")
    free: int = Field(ge=0)
    sha256: dict[str, str]


def read_look(said: str, host: str) -> Look:
    """Find the answer in what a device printed; a shell may print lines of its own around it.

    Raises
    ------
    SepViTError
        If no line is the answer.
    """
    for line in reversed(said.splitlines()):
        if line.startswith("{"):
            with suppress(ValidationError):
                return Look.model_validate_json(line)
    printed = said.strip().splitlines()
    raise SepViTError(
        f"{host} does not answer as Python does; it printed {(printed or ['nothing'])[-1][:80]!r}"
    )


@dataclass(frozen=True)
class Environment:
    """Folders and interpreter of the device.

    Attributes
    ----------
    folder : str
        Folder in the home folder.
    python : str
        The interpreter that the device has.
    """

    folder: str
    python: str

    def look(self, name: str) -> str:
        """Return the command that prints a folder's content (JSON: folder, free, sha256)."""
        return shlex.join([self.python, "-c", _LOOK, f"{self.folder}/{name}"])

    def bootstrap(self, name: str, requirements: list[str]) -> str:
        """Return the command that makes a virtual environment; its last file marks it complete."""
        venv = shlex.quote(f"{self.folder}/venvs/{name}")
        steps = [
            f"rm -rf {venv}",
            f"{shlex.quote(self.python)} -m venv {venv}",
            f"{venv}/bin/python -m pip install --quiet {shlex.join(requirements)}",
            f"touch {venv}/.complete",
        ]
        return f"test -e {venv}/.complete || {{ {' && '.join(steps)}; }}"

    def start(self, name: str, arguments: list[str]) -> str:
        """Return the command that starts Python: the environment's if complete, or the device's."""
        venv = shlex.quote(f"{self.folder}/venvs/{name}")
        return (
            f"P={shlex.quote(self.python)}; test -e {venv}/.complete && P={venv}/bin/python; "
            f'exec "$P" {shlex.join(arguments)}'
        )


async def place(
    files: Mapping[str, Path], name: str, host: str, environment: Environment, run: Run, copy: Copy
) -> str:
    """Put files into one folder on a device: look, copy the missing ones, look again.

    Parameters
    ----------
    files : mapping
        Files by their names on the device.
    name : str
        Name of the folder.
    host : str
        Name of the device, for messages.
    environment : Environment
        Folders and interpreter of the device.
    run, copy : callable
        Functions that run a command and copy files there.

    Returns
    -------
    str
        The folder's path on the device.

    Raises
    ------
    SepViTError
        If the files do not fit, or arrive damaged.
    """

    async def look() -> Look:
        what = f"run {environment.python}, which must be Python 3.9 or later"
        return read_look(await run(environment.look(name), what, _LOOK_S), host)

    there = await look()
    folder = there.folder
    needed = files_to_copy(files, there.sha256, there.free, host)
    if needed:
        await copy({f"{folder}/{file}": files[file] for file in needed})
        there = await look()
        if damaged := files_to_copy(files, there.sha256, 1 << 62, host):
            raise SepViTError(f"{damaged[0]} arrived damaged on {host}; run it again")
    return folder


def files_to_copy(
    files: Mapping[str, Path], there: Mapping[str, object], free: int, host: str
) -> list[str]:
    """Return the names of the files that are missing or different on a device.

    Raises
    ------
    SepViTError
        If they do not fit on its disk.
    """
    needed = [name for name, path in files.items() if there.get(name) != file_sha256(path)]
    size = sum(files[name].stat().st_size for name in needed)
    if size > free:
        raise disk_full(host, f"{size / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")
    return needed


def disk_full(host: str, detail: str) -> SepViTError:
    """Return the error of a full disk."""
    return SepViTError(f"the disk of {host} is full ({detail}); free some space and run it again")
