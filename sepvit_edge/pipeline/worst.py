"""The contact sheet of the images that a package gets most wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..accuracy import softmax, worst_images
from ..contact_sheet import Tile, write_contact_sheet
from ..data.preprocess import preprocess_batch
from ..data.sample import Dataset
from ..package.folder import Package
from .outputs import Rows


class WorstImages:
    """The images whose true class gets the lowest probability, of images that come in pieces."""

    def __init__(self) -> None:
        self._places: list[int] = []
        self._labels: list[int] = []
        self._logits: np.ndarray | None = None

    def add(self, rows: Rows) -> None:
        """Count some images, all with a label."""
        places = [*self._places, *rows.places]
        labels = [*self._labels, *(label for label in rows.labels if label is not None)]
        logits = rows.logits["logits"]
        if self._logits is not None:
            logits = np.concatenate([self._logits, logits])
        worst = worst_images(logits, labels)
        self._places, self._labels = [places[i] for i in worst], [labels[i] for i in worst]
        self._logits = logits[worst]

    def draw(self, package: Package, data: Dataset, path: Path) -> None:
        """Draw the worst images, as the model sees them.

        Parameters
        ----------
        package : Package
            Its names and preprocessing are used.
        data : Dataset
            The images; read again, so that they need not be kept.
        path : Path
            The PNG to write.
        """
        assert self._logits is not None
        names, size = package.labels, package.manifest.model.image_size
        tiles = []
        predictions = self._logits.argmax(1)
        shares = softmax(self._logits).max(1)
        for place, label, predicted, share in zip(
            self._places, self._labels, predictions, shares, strict=True
        ):
            (pixels,) = preprocess_batch([data[place].image], package.preprocessing, size)
            caption = (f"{share:.0%} {names[predicted]}", f"is {names[label]}")
            tiles.append(Tile(pixels, caption, marked=bool(predicted != label)))
        write_contact_sheet(tiles, path)
