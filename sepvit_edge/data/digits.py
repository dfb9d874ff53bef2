"""The built-in data set `digits`: handwritten digits, 8 x 8 pixels, in grey."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import unknown_name
from .sample import SPLITS, Sample

_FOLDER = Path(__file__).parent / "builtin"
_SIDE = 8  # of a digit, in pixels


class Digits:
    """The 1,797 handwritten 8 x 8 digits that scikit-learn has too (UCI, CC BY 4.0).

    A seeded shuffle splits them, always alike: 1,197 to train, 200 to calibrate, 400 to test. No
    image is in two splits, because no two images are equal (a test checks it).

    Parameters
    ----------
    split : str
        ``"train"``, ``"calibration"`` or ``"test"``.

    Raises
    ------
    SepViTError
        If there is no such split.
    """

    labels = tuple("0123456789")

    def __init__(self, split: str) -> None:
        bounds = {"train": (0, 1197), "calibration": (1197, 1397), "test": (1397, 1797)}
        if split not in bounds:
            raise unknown_name("split", split, SPLITS)
        self._pixels, self._labels = _read()
        order = np.random.default_rng(0).permutation(len(self._labels))
        self._indices = order[slice(*bounds[split])]
        self.name = f"digits/{split}"

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        source = int(self._indices[index])
        image = Image.fromarray(self._pixels[source])
        return Sample(image, int(self._labels[source]), f"{self.name}/{source}")

    def label(self, index: int) -> int:
        """Return the digit of an image."""
        return int(self._labels[int(self._indices[index])])


@cache
def _read() -> tuple[np.ndarray, str]:
    """Read all digits, uint8 (1797, 8, 8), and their classes, a character each.

    The file shows them side by side; its rows are the lines of the classes' file.
    """
    rows = (_FOLDER / "digits.txt").read_text(encoding="utf-8").split()
    with Image.open(_FOLDER / "digits.png") as image:
        sheet = np.asarray(image)
    digits = sheet.reshape(len(rows), _SIDE, -1, _SIDE).swapaxes(1, 2).reshape(-1, _SIDE, _SIDE)
    labels = "".join(rows)
    return digits[: len(labels)], labels
