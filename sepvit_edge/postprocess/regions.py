"""Features of regions: RoIAlign on the levels of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..package.postprocessing import TwoStageRule

# A region this little smaller, relative, counts as large enough for a level.
_MARGIN = 1e-6


def region_levels(boxes: np.ndarray, rule: TwoStageRule) -> np.ndarray:
    """Return the level that the features of each region come from.

    A region of area a takes the coarser level from
    ``sqrt(a) / (coarser_from / 2) + 1e-6 >= 2`` on, the one behind it from 4 on, and so on.

    Parameters
    ----------
    boxes : numpy.ndarray
        float32 (N, 4), with an area.
    rule : TwoStageRule
        The manifest's facts.

    Returns
    -------
    numpy.ndarray
        int64 (N,).
    """
    left, top, right, bottom = boxes.astype(np.float64).T
    side = np.sqrt((right - left) * (bottom - top)) / (rule.coarser_from / 2) + _MARGIN
    steps = 2.0 ** np.arange(1, len(rule.pyramid_strides))
    return (side[:, None] >= steps).sum(1)


def region_features(
    levels: Sequence[np.ndarray], boxes: np.ndarray, rule: TwoStageRule, cells: int
) -> np.ndarray:
    """Return the features of regions, by the manifest's rule.

    Parameters
    ----------
    levels : sequence of numpy.ndarray
        float32 (h, w, channels).
    boxes : numpy.ndarray
        float32 (N, 4), with an area, in pixels of the model's input.
    rule : TwoStageRule
        The manifest's facts.
    cells : int
        Cells on a side.

    Returns
    -------
    numpy.ndarray
        float32 (N, channels, cells, cells).
    """
    features = np.empty((len(boxes), levels[0].shape[2], cells, cells), np.float32)
    for i, (box, level) in enumerate(zip(boxes, region_levels(boxes, rule), strict=True)):
        features[i] = align(levels[level], box, rule.pyramid_strides[level], cells)
    return features


def align(level: np.ndarray, box: np.ndarray, stride: int, cells: int) -> np.ndarray:
    """Average bilinear samples in the cells of one region (RoIAlign).

    The samples stand in rows and columns, so rows are blended and added up before columns.

    Parameters
    ----------
    level : numpy.ndarray
        float32 (h, w, channels).
    box : numpy.ndarray
        float32 (4,), in pixels of the model's input.
    stride : int
        Pixels of the input per position of the level.
    cells : int
        Cells on a side.

    Returns
    -------
    numpy.ndarray
        float64 (channels, cells, cells).
    """
    left, top, right, bottom = (float(value) / stride - 0.5 for value in box)
    rows = _samples(top, bottom, level.shape[0], cells)
    columns = _samples(left, right, level.shape[1], cells)
    first, last = int(columns.before.min()), int(columns.after.max()) + 1
    x = _summed(level[:, first:last], rows, cells)  # (cells, w, channels)
    x = _summed(x.transpose(1, 0, 2), columns, cells, first)
    return (x / (rows.count * columns.count)).transpose(2, 1, 0)


@dataclass(frozen=True)
class _Samples:
    """Where the samples of all cells lie along an axis.

    Attributes
    ----------
    count : int
        Samples of a cell.
    before, after : numpy.ndarray
        The neighbours of each sample, int64 (cells * count,).
    weight_before, weight_after : numpy.ndarray
        Their weights; both 0 for samples more than a position outside the level.
    """

    count: int
    before: np.ndarray
    after: np.ndarray
    weight_before: np.ndarray
    weight_after: np.ndarray


def _samples(start: float, end: float, length: int, cells: int) -> _Samples:
    side = (end - start) / cells
    count = math.ceil(side)
    cell = np.arange(cells)[:, None] * side
    place = (start + cell + (np.arange(count) + 0.5) * side / count).reshape(-1)
    inside = (place >= -1) & (place <= length)
    place = np.minimum(np.maximum(place, 0), length - 1)
    before = place.astype(np.int64)
    after = np.minimum(before + 1, length - 1)
    weight = place - before
    return _Samples(count, before, after, (1 - weight) * inside, weight * inside)


def _summed(x: np.ndarray, samples: _Samples, cells: int, first: int = 0) -> np.ndarray:
    """Blend along the first axis, and add up the samples of each cell in their order."""
    blended = (
        x[samples.before - first].astype(np.float64) * samples.weight_before[:, None, None]
        + x[samples.after - first].astype(np.float64) * samples.weight_after[:, None, None]
    )
    parts = blended.reshape(cells, samples.count, *blended.shape[1:])
    total = parts[:, 0]
    for i in range(1, samples.count):
        total = total + parts[:, i]
    return total
