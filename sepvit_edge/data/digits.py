"""The built-in data set `digits`: handwritten digits, 8 x 8 pixels, in grey."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..errors import unknown_name
from .sample import SPLITS, Sample


class Digits:
    """The 1,797 handwritten 8 x 8 digits that ship with scikit-learn (UCI, CC BY 4.0).

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
        from sklearn.datasets import load_digits

        bounds = {"train": (0, 1197), "calibration": (1197, 1397), "test": (1397, 1797)}
        if split not in bounds:
            raise unknown_name("split", split, SPLITS)
        bunch = load_digits()
        order = np.random.default_rng(0).permutation(len(bunch.target))
        self._indices = order[slice(*bounds[split])]
        # 0..16 levels of grey become 0..255.
        self._pixels = (bunch.images * 255 / 16).round().astype(np.uint8)
        self._labels = bunch.target
        self.name = f"digits/{split}"

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        source = int(self._indices[index])
        image = Image.fromarray(self._pixels[source])
        return Sample(image, int(self._labels[source]), f"{self.name}/{source}")
