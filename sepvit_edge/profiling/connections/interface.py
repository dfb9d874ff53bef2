"""What every connection to a device on which Python runs offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ...errors import SepViTError

# Called with the name of each step, for a progress display.
Step = Callable[[str], None]


def missing_library(name: str) -> SepViTError:
    """Name the extra that installs a library."""
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
        """Close its input and wait for its end.

        Returns
        -------
        status : int or None
            Exit status; None if it is not known.
        said : str
            Standard error.
        """
        ...


class Host(Protocol):
    """A device on which Python runs."""

    async def place(self, files: Mapping[str, Path], name: str) -> str:
        """Put files, under the given names, into one folder on the device; return its path."""
        ...

    async def bootstrap(self, name: str, requirements: list[str]) -> None:
        """Make an environment of this name on the device if it does not exist yet."""
        ...

    async def start(self, name: str, arguments: list[str]) -> Process:
        """Start Python, in the environment of this name where there is one."""
        ...
