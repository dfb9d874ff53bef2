"""Class logits of a segmentation model -> the class of each pixel."""

from __future__ import annotations

import numpy as np

from ..package.postprocessing import SegmentationRule
from .blend import Neighbours, blend


def class_map(logits: np.ndarray, rule: SegmentationRule) -> np.ndarray:
    """Return the class of each pixel of the model's input.

    Parameters
    ----------
    logits : numpy.ndarray
        float32 (classes, h, w).
    rule : SegmentationRule
        The manifest's facts.

    Returns
    -------
    numpy.ndarray
        uint16 (h * stride, w * stride). A NaN is never the largest logit.
    """
    _, h, w = logits.shape
    rows, columns = _taps(h, rule.stride), _taps(w, rule.stride)
    best = np.full((h * rule.stride, w * rule.stride), -np.inf)
    chosen = np.zeros(best.shape, np.uint16)
    for index, plane in enumerate(logits.astype(np.float64)):
        value = blend(blend(plane, columns).T, rows).T
        larger = value > best
        best[larger] = value[larger]
        chosen[larger] = index
    return chosen


def _taps(length: int, stride: int) -> Neighbours:
    """Return the two neighbours of each output along an axis, and the second one's weight."""
    place = np.maximum((np.arange(length * stride) + 0.5) / stride - 0.5, 0)
    before = place.astype(np.int64)
    after = np.minimum(before + 1, length - 1)
    return before, after, place - before
