"""What a dense package finds in many image files: read ahead, in order, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..data.fit import Fit
from ..errors import SepViTError
from ..package.session import PackageSession
from .answers import Answer, answer_of, fitted
from .reading import Engine, run_here

_CHUNK = 4  # images that are read together


@dataclass(frozen=True)
class Finding:
    """What is found in an image, or why nothing is.

    Attributes
    ----------
    image : Path
        The file.
    answer : Answer or None
        None if the image cannot be read.
    error : str
        The sentence that says why; empty if it could be read.
    """

    image: Path
    answer: Answer | None = None
    error: str = ""


@dataclass(frozen=True)
class _Find:
    """The work on each piece of files."""

    session: PackageSession
    parallel: ClassVar[bool] = True

    def read(self, path: Path) -> tuple[Path, tuple[np.ndarray, Fit] | str]:
        try:
            return path, fitted(self.session.package, path)
        except SepViTError as error:
            return path, str(error)

    def run(self, piece: Sequence[tuple[Path, tuple[np.ndarray, Fit] | str]]) -> list[Finding]:
        return [self._find(*each) for each in piece]

    def _find(self, path: Path, read: tuple[np.ndarray, Fit] | str) -> Finding:
        if isinstance(read, str):
            return Finding(path, error=read)
        pixels, fit = read
        outputs = self.session.run_pixels(pixels)
        answer = answer_of(self.session.package, outputs, fit, self.session.run_graph)
        return Finding(path, answer)


def find_in_files(
    session: PackageSession, paths: Sequence[Path], engine: Engine = run_here
) -> Iterator[Finding]:
    """Run a dense package on image files.

    Parameters
    ----------
    session : PackageSession
        The package.
    paths : sequence of Path
        The files.
    engine : callable
        Where the work is done. Default: in this process, decoded on all cores.

    Yields
    ------
    Finding
        One a file, in their order, whatever the engine.
    """
    for piece in engine(paths, _Find(session), _CHUNK):
        yield from piece
