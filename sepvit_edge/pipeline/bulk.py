"""Classes of many image files: read on all cores, in order, a few at a time in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..accuracy import softmax
from ..errors import SepViTError
from ..package.session import PackageSession
from .reading import Engine, run_here

_CHUNK = 16  # images that are read, and then run, together


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, or why it has none.

    Attributes
    ----------
    image : Path
        The file.
    classes : tuple of (str, float)
        Label and probability of each, most probable first; empty if the image cannot be read.
    error : str
        The sentence that says why; empty if it could be read.
    """

    image: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class _Classify:
    """The work on each piece of files."""

    session: PackageSession
    top: int
    parallel: ClassVar[bool] = True

    def read(self, path: Path) -> tuple[Path, np.ndarray | str]:
        try:
            return path, self.session.preprocess(path)[0]
        except SepViTError as error:
            return path, str(error)

    def run(self, piece: Sequence[tuple[Path, np.ndarray | str]]) -> list[Prediction]:
        return list(_predict(self.session, piece, self.top))


def classify_files(
    session: PackageSession, paths: Sequence[Path], top: int, engine: Engine = run_here
) -> Iterator[Prediction]:
    """Classify image files.

    The files are decoded while the runtime works; memory does not grow with their number.

    Parameters
    ----------
    session : PackageSession
        The package.
    paths : sequence of Path
        The files.
    top : int
        Number of classes of each.
    engine : callable
        Where the work is done. Default: in this process, decoded on all cores.

    Yields
    ------
    Prediction
        One a file, in their order, whatever the engine.
    """
    batch = session.package.manifest.input.shape[0]
    size = max(batch, _CHUNK // batch * batch)
    for piece in engine(paths, _Classify(session, top), size):
        yield from piece


def _predict(
    session: PackageSession, piece: Sequence[tuple[Path, np.ndarray | str]], top: int
) -> Iterator[Prediction]:
    labels = session.package.labels
    pixels = [read for _, read in piece if not isinstance(read, str)]
    probabilities = iter(softmax(session.run_pixels(np.stack(pixels))[0]) if pixels else [])
    for path, read in piece:
        if isinstance(read, str):
            yield Prediction(path, error=read)
            continue
        shares = next(probabilities)
        # A stable sort: equal logits keep the order of the classes, in every language.
        best = np.argsort(-shares, kind="stable")[:top]
        yield Prediction(path, tuple((labels[i], float(shares[i])) for i in best))
