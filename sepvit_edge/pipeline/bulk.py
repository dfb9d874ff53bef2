"""Classes of many image files: read on all cores, in order, a few at a time in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..accuracy import softmax
from ..errors import SepViTError
from ..machine import usable_cores
from ..package.session import PackageSession

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


def classify_files(
    session: PackageSession, paths: Sequence[Path], top: int, readers: int | None = None
) -> Iterator[Prediction]:
    """Classify image files.

    The files are decoded by several threads while the runtime works; memory does not grow with
    their number.

    Parameters
    ----------
    session : PackageSession
        The package.
    paths : sequence of Path
        The files.
    top : int
        Number of classes of each.
    readers : int, optional
        Threads that decode. Default: the number of cores that this process may use.

    Yields
    ------
    Prediction
        One a file, in their order, whatever the number of threads.
    """
    batch = session.package.manifest.input.shape[0]
    size = max(batch, _CHUNK // batch * batch)
    chunks = (paths[start : start + size] for start in range(0, len(paths), size))
    count = readers or len(usable_cores())
    waiting: deque[Future[tuple[Sequence[Path], list[np.ndarray | str]]]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for chunk in islice(chunks, count + 1):
                waiting.append(pool.submit(_read, session, chunk))
            while waiting:
                files, read = waiting.popleft().result()
                for chunk in islice(chunks, 1):
                    waiting.append(pool.submit(_read, session, chunk))
                yield from _predict(session, files, read, top)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(
    session: PackageSession, files: Sequence[Path]
) -> tuple[Sequence[Path], list[np.ndarray | str]]:
    """Return the pixels of each file, or the sentence that says why it cannot be read."""
    read: list[np.ndarray | str] = []
    for path in files:
        try:
            read.append(session.preprocess(path)[0])
        except SepViTError as error:
            read.append(str(error))
    return files, read


def _predict(
    session: PackageSession, files: Sequence[Path], read: Sequence[np.ndarray | str], top: int
) -> Iterator[Prediction]:
    labels = session.package.labels
    pixels = [each for each in read if not isinstance(each, str)]
    probabilities = iter(softmax(session.run_pixels(np.stack(pixels))[0]) if pixels else [])
    for path, each in zip(files, read, strict=True):
        if isinstance(each, str):
            yield Prediction(path, error=each)
            continue
        shares = next(probabilities)
        # A stable sort: equal logits keep the order of the classes, in every language.
        best = np.argsort(-shares, kind="stable")[:top]
        yield Prediction(path, tuple((labels[i], float(shares[i])) for i in best))
