"""What has to be said to a POSIX shell on a device, whichever library carries it there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import SepViTError
from ...files import file_sha256

_LOOK_S = 120
COPY_S = 1200  # what the copying of one file may take
# Runs a command to its end (command, what it does, seconds that it may take), gives its output.
Run = Callable[[str, str, float], Awaitable[str]]
# Copies files to paths on the device.
Copy = Callable[[Mapping[str, Path]], Awaitable[None]]

# Python on the device: makes a folder in the home folder, and tells what is in it and what fits.
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


@dataclass(frozen=True)
class Environment:
    """Where things are on the device.

    Attributes
    ----------
    folder : str
        In the home folder.
    python : str
        The interpreter that the device has.
    """

    folder: str
    python: str

    def look(self, name: str) -> str:
        """Command that prints what is in a folder (JSON: folder, free, sha256)."""
        return shlex.join([self.python, "-c", _LOOK, f"{self.folder}/{name}"])

    def bootstrap(self, name: str, requirements: list[str]) -> str:
        """Command that makes a virtual environment; the last file that it writes says: complete."""
        venv = shlex.quote(f"{self.folder}/venvs/{name}")
        steps = [
            f"rm -rf {venv}",
            f"{shlex.quote(self.python)} -m venv {venv}",
            f"{venv}/bin/python -m pip install --quiet {shlex.join(requirements)}",
            f"touch {venv}/.complete",
        ]
        return f"test -e {venv}/.complete || {{ {' && '.join(steps)}; }}"

    def start(self, name: str, arguments: list[str]) -> str:
        """Command that becomes Python: the environment's where it was made, else the device's."""
        venv = shlex.quote(f"{self.folder}/venvs/{name}")
        return (
            f"P={shlex.quote(self.python)}; test -e {venv}/.complete && P={venv}/bin/python; "
            f'exec "$P" {shlex.join(arguments)}'
        )


async def place(
    files: Mapping[str, Path], name: str, host: str, environment: Environment, run: Run, copy: Copy
) -> str:
    """Have files in one folder on a device: look, copy what it lacks, look again.

    Parameters
    ----------
    files : mapping
        Files by the names that they have there.
    name : str
        Of the folder.
    host : str
        The device, for people.
    environment : Environment
        Where things are there.
    run, copy : callable
        How commands and files get there.

    Returns
    -------
    str
        The folder's path on the device.

    Raises
    ------
    SepViTError
        If the files do not fit, or arrive damaged.
    """

    async def look() -> dict[str, Any]:
        what = f"run {environment.python}, which has to be Python 3.9 or later"
        found: dict[str, Any] = json.loads(await run(environment.look(name), what, _LOOK_S))
        return found

    there = await look()
    folder = str(there["folder"])
    needed = files_to_copy(files, there["sha256"], there["free"], host)
    if needed:
        await copy({f"{folder}/{file}": files[file] for file in needed})
        there = await look()
        if damaged := files_to_copy(files, there["sha256"], 1 << 62, host):
            raise SepViTError(f"{damaged[0]} arrived damaged on {host}; run it again")
    return folder


def files_to_copy(
    files: Mapping[str, Path], there: Mapping[str, object], free: int, host: str
) -> list[str]:
    """Names of the files that a device lacks or has otherwise.

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
    """Say so."""
    return SepViTError(f"the disk of {host} is full ({detail}); free some space and run it again")
