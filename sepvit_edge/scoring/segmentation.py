"""Scores of class maps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..data.dense.sample import IGNORED


@dataclass
class PixelCounts:
    """Pixels by true and predicted class, summed over images.

    Attributes
    ----------
    labels : tuple of str
        Class names.
    counts : numpy.ndarray
        int64 (classes, classes): true class, predicted class.

    Examples
    --------
    >>> pixels = PixelCounts(("ground", "road"))
    >>> pixels.add(np.array([[0, 1, 255, 1]]), np.array([[0, 1, 1, 0]]))
    >>> pixels.mean_iou, round(pixels.accuracy, 3)
    (0.5, 0.667)
    """

    labels: tuple[str, ...]
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.labels), len(self.labels)), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count an image's pixels; those whose true class is `IGNORED` do not count.

        Parameters
        ----------
        truth, predicted : numpy.ndarray
            Class maps (H, W).
        """
        known = truth != IGNORED
        classes = len(self.labels)
        pairs = truth[known].astype(np.int64) * classes + predicted[known]
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    @property
    def ious(self) -> np.ndarray:
        """Intersection over union of each class, 0..1; NaN for a class that is nowhere."""
        right = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - right
        return np.where(union > 0, right / np.maximum(union, 1), np.nan)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that are in the truth or in the prediction; NaN without pixels."""
        known = self.ious[~np.isnan(self.ious)]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of the pixels with the right class; NaN without pixels."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else float("nan")


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of pixels with the same class in two class maps, 0..1."""
    return float((first == second).mean())
