"""The virtual environment of a toolchain that cannot be installed beside torch 2.13.

It is created once, by the first export for its target, and used again. A small script runs in it;
nothing of the toolchain is imported here.
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

# Overrides the user's cache folder as the place of environments; `export --toolkit-env` sets it.
VARIABLE = "SEPVIT_EDGE_TOOLKIT_ENV"
_COMPLETE = "complete"  # the last file to be written, with what was installed
_INSTALL_S = 3600


@dataclass(frozen=True)
class Toolkit:
    """A toolchain of the package index, and its environment.

    Attributes
    ----------
    distribution, version : str
        The one supported version.
    beside : tuple of str
        Requirements that its metadata lacks.
    size_gb : float
        Size of the environment, in 10^9 bytes.
    """

    distribution: str
    version: str
    beside: tuple[str, ...] = ()
    size_gb: float = 0.0

    @property
    def requirements(self) -> list[str]:
        """Requirements for pip."""
        return [f"{self.distribution}=={self.version}", *self.beside]

    @property
    def folder(self) -> Path:
        """Folder of the environment, existing or not."""
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
        """Whether the environment exists, complete and of this version."""
        try:
            return (self.folder / _COMPLETE).read_text().split("\n") == self.requirements
        except OSError:
            return False

    def check(self) -> str:
        """Return the version that is installed.

        Raises
        ------
        SepViTError
            If the environment does not exist.
        """
        if not self.ready:
            raise SepViTError(
                f"{self.distribution} {self.version} is not installed in {self.folder}; the next "
                f"export for its target installs it there ({self.size_gb:g} GB), or in the folder "
                "that --toolkit-env names"
            )
        return self.version

    def make(self, step: Callable[[str], None]) -> None:
        """Create the environment if it does not exist; an interrupted one is removed.

        Raises
        ------
        SepViTError
            If the disk is too small, or pip cannot install the toolchain; the sentence says why.
        """
        if self.ready:
            return
        folder = self.folder
        if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
            raise SepViTError(
                f"{folder} is not a virtual environment; name another folder with --toolkit-env"
            )
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
        raise SepViTError(f"the toolchain could not {what} within {_INSTALL_S} s") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no reason"]
        reason = errors[-1].removeprefix("ERROR: ")
        raise SepViTError(f"the toolchain could not {what}: {reason}")
