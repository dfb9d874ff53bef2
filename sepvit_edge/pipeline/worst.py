"""The contact sheet of the images that a package gets most wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..accuracy import softmax, worst_images
from ..contact_sheet import Tile, write_contact_sheet
from ..data.preprocess import preprocess_batch
from ..data.sample import Dataset
from ..package.folder import Package


def draw_worst(
    package: Package, data: Dataset, logits: np.ndarray, labels: Sequence[int], path: Path
) -> None:
    """Draw the images whose true class gets the lowest probability, as the model sees them.

    Parameters
    ----------
    package : Package
        Its names and preprocessing are used.
    data : Dataset
        The images; read again, so that they need not be kept.
    logits : numpy.ndarray
        (N, num_classes), of the first N images.
    labels : sequence of int
        Index of each image's class (N,).
    path : Path
        The PNG to write.
    """
    names, size = package.labels, package.manifest.model.image_size
    probabilities = softmax(logits)
    tiles = []
    for i in worst_images(logits, labels):
        (pixels,) = preprocess_batch([data[i].image], package.preprocessing, size)
        predicted = int(logits[i].argmax())
        sure = f"{probabilities[i, predicted]:.0%}"
        caption = (f"{sure} {names[predicted]}", f"is {names[labels[i]]}")
        tiles.append(Tile(pixels, caption, marked=predicted != labels[i]))
    write_contact_sheet(tiles, path)
