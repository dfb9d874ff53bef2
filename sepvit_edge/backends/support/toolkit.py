"""A tool chain that cannot share an environment with torch 2.13: it gets a virtual one of its own.

The environment is made once, on the first export for its target, and used again. It is reached
through a small script that runs in it; nothing of the tool chain is imported here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import SepViTError
from ...files import cache_folder

# Where environments are, in place of the user's cache folder; `export --toolkit-env` sets it.
VARIABLE = "SEPVIT_EDGE_TOOLKIT_ENV"
_COMPLETE = "complete"  # the last file to be written, with what was installed
_INSTALL_S = 3600


@dataclass(frozen=True)
class Toolkit:
    """A tool chain of the package index, and what its environment needs.

    Attributes
    ----------
    distribution, version : str
        Exactly that version.
    beside : tuple of str
        Requirements that it does not state itself.
    size_gb : float
        Of the environment, in 10^9 bytes.
    """

    distribution: str
    version: str
    beside: tuple[str, ...] = ()
    size_gb: float = 0.0

    @property
    def requirements(self) -> list[str]:
        """What pip installs."""
        return [f"{self.distribution}=={self.version}", *self.beside]

    @property
    def folder(self) -> Path:
        """Where the environment is, or would be."""
        given = os.environ.get(VARIABLE)
        if given:
            return Path(given).expanduser().absolute()
        return cache_folder() / f"{self.distribution}-{self.version}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        inside = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
        return self.folder.joinpath(*inside)

    @property
    def ready(self) -> bool:
        """Whether the environment is there, complete and of this version."""
        try:
            return (self.folder / _COMPLETE).read_text().split("\n") == self.requirements
        except OSError:
            return False

    def check(self) -> str:
        """Return the version that is installed.

        Raises
        ------
        SepViTError
            If the environment is not there.
        """
        if not self.ready:
            raise SepViTError(
                f"{self.distribution} {self.version} has no environment in {self.folder}; an "
                f"export for its target makes one there ({self.size_gb:g} GB), or where "
                "--toolkit-env says"
            )
        return self.version

    def make(self, step: Callable[[str], None]) -> None:
        """Make the environment, unless it is there; an interrupted one is removed.

        Raises
        ------
        SepViTError
            If the disk is too small, or pip cannot install the tool chain; the sentence says why.
        """
        if self.ready:
            return
        folder = self.folder
        if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
            raise SepViTError(f"{folder} is no virtual environment; give another --toolkit-env")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free / 1e9
        if free < self.size_gb:
            raise SepViTError(
                f"{self.distribution} needs {self.size_gb:g} GB in {folder}, {free:.1f} GB are free"
            )
        step(f"installing {self.distribution} {self.version}, {self.size_gb:g} GB, once")
        try:
            _run([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
            pip = [str(self.python), "-m", "pip", "install", "--quiet", "--no-input"]
            _run([*pip, "--disable-pip-version-check", *self.requirements], "be installed")
            (folder / _COMPLETE).write_text("\n".join(self.requirements))
        finally:
            if not self.ready:
                shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_INSTALL_S
        )
    except subprocess.TimeoutExpired:
        raise SepViTError(f"the tool chain could not {what} within {_INSTALL_S} s") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no reason"]
        reason = errors[-1].removeprefix("ERROR: ")
        raise SepViTError(f"the tool chain could not {what}: {reason}")
