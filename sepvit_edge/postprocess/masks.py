"""Masks of objects: from the cells of a box to the pixels of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .blend import Neighbours, blend
from .exponential import sigmoid


@dataclass(frozen=True)
class Mask:
    """The pixels of an object, in the part of the image that its box covers.

    Attributes
    ----------
    left, top : int
        Place of that part in the image.
    pixels : numpy.ndarray
        bool (h, w).
    """

    left: int
    top: int
    pixels: np.ndarray

    def whole(self, size: tuple[int, int]) -> np.ndarray:
        """Return the mask of the whole image, bool (H, W).

        Parameters
        ----------
        size : tuple of int
            Height and width of the image.
        """
        result = np.zeros(size, bool)
        height, width = self.pixels.shape
        result[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return result


def paste(logits: np.ndarray, box: np.ndarray, size: tuple[int, int], threshold: float) -> Mask:
    """Put the mask of a box into an image.

    The centre of pixel x lies at ``(x + 0.5 - left) / (right - left) * cells - 0.5`` among the
    cells. Its probability is bilinear between them, first within a row; outside it is 0.

    Parameters
    ----------
    logits : numpy.ndarray
        float32 (cells, cells).
    box : numpy.ndarray
        float32 (4,), in pixels of the image.
    size : tuple of int
        Height and width of the image.
    threshold : float
        Least probability of a pixel that belongs to the object.
    """
    left, top, right, bottom = (float(value) for value in box)
    first_column, columns = _places(left, right, logits.shape[1], size[1])
    first_row, rows = _places(top, bottom, logits.shape[0], size[0])
    cells = np.pad(sigmoid(logits).astype(np.float64), 1)
    blended = blend(blend(cells, columns).T, rows).T
    return Mask(first_column, first_row, blended >= threshold)


def _places(start: float, end: float, cells: int, length: int) -> tuple[int, Neighbours]:
    """Return the first pixel of a box along an axis, and of each the neighbours and the weight.

    The neighbours count from the cell of zeros in front of the first one.
    """
    first, last = max(0, math.floor(start)), min(length, math.ceil(end))
    if not end > start:  # a box too small for float32
        last = first
    place = (np.arange(first, last) + 0.5 - start) / (end - start) * cells - 0.5
    whole = np.floor(place)
    before, after = (np.clip(whole + i, 0, cells + 1).astype(np.int64) for i in (1, 2))
    return first, (before, after, place - whole)
