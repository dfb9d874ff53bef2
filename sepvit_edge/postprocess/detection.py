"""Class logits and box deltas of anchors -> boxes with class and score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..package.postprocessing import AnchorRule
from .exponential import exp, sigmoid
from .masks import Mask

# A logit this far below the threshold's is dropped before its score is computed.
_MARGIN = 0.01


@dataclass(frozen=True)
class Detections:
    """Boxes of one image, the best first.

    Attributes
    ----------
    boxes : numpy.ndarray
        float32 (N, 4): left, top, right, bottom in pixels; right and bottom are exclusive.
    scores : numpy.ndarray
        float32 (N,), 0..1.
    classes : numpy.ndarray
        int64 (N,).
    masks : tuple of Mask or None
        The pixels of each object, of models that find them.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: tuple[Mask, ...] | None = None

    def taken(self, places: Sequence[int] | np.ndarray) -> Detections:
        """Return the boxes at some places."""
        masks = None if self.masks is None else tuple(self.masks[int(i)] for i in places)
        return Detections(self.boxes[places], self.scores[places], self.classes[places], masks)

    def __len__(self) -> int:
        return len(self.scores)


def level_sizes(rule: AnchorRule, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the rows and columns of each level, for an input of `size` (height, width)."""
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in rule.strides]


def anchors(rule: AnchorRule, size: tuple[int, int]) -> np.ndarray:
    """Return the anchors of all levels as centre x, centre y, width and height.

    The first anchor's centre is at 0, 0, the next one's a stride further. Width is
    ``stride * scale * (1 / sqrt(ratio))``, height ``stride * scale * sqrt(ratio)``.

    Parameters
    ----------
    rule : AnchorRule
        The manifest's facts.
    size : tuple of int
        Height and width of the model's input.

    Returns
    -------
    numpy.ndarray
        float64 (A, 4).
    """
    levels = []
    for stride, (rows, columns) in zip(rule.strides, level_sizes(rule, size), strict=True):
        shapes = [
            (stride * scale * (1 / math.sqrt(ratio)), stride * scale * math.sqrt(ratio))
            for ratio in rule.ratios
            for scale in rule.scales
        ]
        level = np.empty((rows, columns, len(shapes), 4))
        level[..., 0] = stride * np.arange(columns)[:, None]
        level[..., 1] = stride * np.arange(rows)[:, None, None]
        level[..., 2:] = shapes
        levels.append(level.reshape(-1, 4))
    return np.concatenate(levels)


def decode(places: np.ndarray, deltas: np.ndarray, limit: float) -> np.ndarray:
    """Move and scale anchors by a model's deltas.

    Parameters
    ----------
    places : numpy.ndarray
        float64 (N, 4): anchors as `anchors` returns them.
    deltas : numpy.ndarray
        float32 (N, 4): shift of the centre in widths and heights, logarithms of the scales.
    limit : float
        The logarithms are clipped to plus and minus this.

    Returns
    -------
    numpy.ndarray
        float64 (N, 4): left, top, right, bottom. A row with a NaN in it stays NaN.
    """
    x, y, width, height = places.T
    dx, dy, dw, dh = deltas.astype(np.float64).T
    known = ~np.isnan(deltas).any(1)
    scales = exp(np.where(known, np.clip((dw, dh), -limit, limit), 0))
    x, y = x + dx * width, y + dy * height
    half_width, half_height = width * scales[0] * 0.5, height * scales[1] * 0.5
    boxes = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)
    boxes[~known] = np.nan
    return boxes


def detect(
    logits: np.ndarray,
    deltas: np.ndarray,
    rule: AnchorRule,
    size: tuple[int, int],
    content: tuple[int, int] | None = None,
) -> Detections:
    """Return the boxes that a model finds in one image.

    1. In each level: the pairs of anchor and class whose score, the sigmoid rounded to float32, is
       above the threshold; of them the best `level_candidates`, equal scores in their order.
    2. Their boxes: decoded, clipped to the content, rounded to float32. Boxes without area go.
    3. Over all levels, the best first, equal scores in their order: a box stays unless a box of its
       class that stayed overlaps it by more than the threshold (`overlaps`).

    Parameters
    ----------
    logits : numpy.ndarray
        float32 (A, classes).
    deltas : numpy.ndarray
        float32 (A, 4).
    rule : AnchorRule
        The manifest's facts.
    size : tuple of int
        Height and width of the model's input.
    content : tuple of int, optional
        Height and width of the image inside the input, without its padding; all of it by default.

    Returns
    -------
    Detections
        In pixels of the input. A score or a delta that is NaN gives no box.
    """
    chosen, scores = best_anchors(logits, rule, size)
    rows, classes = chosen // logits.shape[1], chosen % logits.shape[1]
    boxes = decode(anchors(rule, size)[rows], deltas[rows], rule.size_delta_limit)
    boxes, order = ranked(boxes, scores, content or size)
    found = Detections(boxes, scores[order], classes[order])
    return found.taken(suppress(boxes, found.classes, rule.iou_threshold, rule.max_detections))


def ranked(
    boxes: np.ndarray, scores: np.ndarray, content: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes and round them to float32, drop those without an area, put the best first.

    Parameters
    ----------
    boxes : numpy.ndarray
        float64 (N, 4).
    scores : numpy.ndarray
        float32 (N,); equal ones stay in their order.
    content : tuple of int
        Height and width that boxes are clipped to.

    Returns
    -------
    boxes : numpy.ndarray
        float32 (M, 4).
    order : numpy.ndarray
        int64 (M,): the places that they had.
    """
    height, width = content
    clipped = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    (kept,) = ((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])).nonzero()
    order = kept[np.argsort(-scores[kept], kind="stable")]
    return clipped[order], order


def suppress(boxes: np.ndarray, groups: np.ndarray, threshold: float, largest: int) -> list[int]:
    """Return the indices of the boxes that stay, at most `largest` (step 3 of `detect`).

    Parameters
    ----------
    boxes : numpy.ndarray
        float32 (N, 4), the best first.
    groups : numpy.ndarray
        int64 (N,): the class of each.
    threshold : float
        Largest overlap with a better box of the same group.
    largest : int
        Largest number of boxes that stay.
    """
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if alive[i]:
            kept.append(i)
            if len(kept) == largest:
                break
            alive &= (groups != groups[i]) | (overlaps(boxes[i : i + 1], boxes)[0] <= threshold)
    return kept


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute intersection over union of each pair of boxes.

    It is ``shared / (area of the first + area of the second - shared)``.

    Parameters
    ----------
    first, second : numpy.ndarray
        (N, 4) and (M, 4), with an area.

    Returns
    -------
    numpy.ndarray
        float64 (N, M).

    Examples
    --------
    >>> overlaps(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [0, 0, 2, 2]])).round(3).tolist()
    [[0.333, 1.0]]
    """
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    sides = np.maximum(sides, 0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / (_areas(a) + _areas(b) - shared)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def best_anchors(
    logits: np.ndarray, rule: AnchorRule, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best pairs of anchor and class in each level, and their scores (step 1)."""
    per_place, classes = len(rule.ratios) * len(rule.scales), logits.shape[1]
    least = -np.inf
    if 0 < rule.score_threshold < 1:
        least = math.log(rule.score_threshold / (1 - rule.score_threshold)) - _MARGIN
    start = 0
    chosen, scores = [], []
    for rows, columns in level_sizes(rule, size):
        count = rows * columns * per_place * classes
        level = logits.reshape(-1)[start : start + count]
        pairs = np.flatnonzero(level > least)
        score = sigmoid(level[pairs])
        above = score > rule.score_threshold
        pairs, score = pairs[above], score[above]
        best = np.argsort(-score, kind="stable")[: rule.level_candidates]
        chosen.append(pairs[best] + start)
        scores.append(score[best])
        start += count
    pairs, score = np.concatenate(chosen), np.concatenate(scores)
    # Back into the order of the outputs, which decides between equal scores.
    order = np.argsort(pairs)
    return pairs[order], score[order]
