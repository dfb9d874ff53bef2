"""The outputs of a two-stage detector's three networks -> boxes with class, score and mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..model.dense.config import BOX_HEAD, MASK_HEAD
from ..package.postprocessing import TwoStageRule
from .detection import Detections, anchors, best_anchors, decode, level_sizes, ranked, suppress
from .exponential import exp
from .regions import region_features

# Name of a head and features of regions (N, channels, cells, cells) -> its outputs.
Heads = Callable[[str, np.ndarray], list[np.ndarray]]
# Takes the name of a step that ended.
Ended = Callable[[str], None]


def find_instances(
    outputs: Sequence[np.ndarray],
    heads: Heads,
    rule: TwoStageRule,
    size: tuple[int, int],
    content: tuple[int, int] | None = None,
    ended: Ended = lambda _: None,
) -> tuple[Detections, np.ndarray]:
    """Return the objects that a model finds in one image, and the logits of their masks.

    1. `propose`: regions, from the outputs of the first stage.
    2. `region_features` of each, through the box head; `region_boxes` of its outputs.
    3. `region_features` of each of these boxes, through the mask head; of its outputs the mask of
       the box's class. `masks.paste` puts it into the image.

    Parameters
    ----------
    outputs : sequence of numpy.ndarray
        float32: logits (A, 1) and deltas (A, 4) of the proposals, levels (channels, h, w).
    heads : callable
        Runs the second and the third network.
    rule : TwoStageRule
        The manifest's facts.
    size : tuple of int
        Height and width of the model's input.
    content : tuple of int, optional
        Height and width of the image inside the input; all of it by default.
    ended : callable
        Called with the name of each step behind the first stage when it ended.

    Returns
    -------
    found : Detections
        In pixels of the input.
    masks : numpy.ndarray
        float32 (N, cells, cells).
    """
    logits, deltas, *maps = outputs
    levels = pyramid(maps)
    proposals = propose(logits, deltas, rule, size, content or size)
    ended("proposals")
    regions = region_features(levels, proposals, rule, rule.box_cells)
    ended("box features")
    class_logits, box_deltas = heads(BOX_HEAD, regions)
    ended(BOX_HEAD)
    found = region_boxes(proposals, class_logits, box_deltas, rule, content or size)
    ended("boxes")
    regions = region_features(levels, found.boxes, rule, rule.mask_cells)
    ended("mask features")
    (masks,) = heads(MASK_HEAD, regions)
    ended(MASK_HEAD)
    return found, masks[np.arange(len(found)), found.classes]


def pyramid(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Turn levels (channels, h, w) into (h, w, channels): the numbers of a position together."""
    return [np.ascontiguousarray(level.transpose(1, 2, 0)) for level in maps]


def propose(
    logits: np.ndarray,
    deltas: np.ndarray,
    rule: TwoStageRule,
    size: tuple[int, int],
    content: tuple[int, int],
) -> np.ndarray:
    """Return the regions that may hold an object, the best first.

    As `detect`, but boxes are suppressed by better ones of their level.

    Returns
    -------
    numpy.ndarray
        float32 (N, 4), in pixels of the input.
    """
    own = rule.proposals
    rows, scores = best_anchors(logits, own, size)
    boxes = decode(anchors(own, size)[rows], deltas[rows], own.size_delta_limit)
    boxes, order = ranked(boxes, scores, content)
    per_place = len(own.ratios) * len(own.scales)
    ends = np.cumsum([h * w * per_place for h, w in level_sizes(own, size)])
    levels = np.searchsorted(ends, rows[order], side="right")
    return boxes[suppress(boxes, levels, own.iou_threshold, own.max_detections)]


def region_boxes(
    regions: np.ndarray,
    logits: np.ndarray,
    deltas: np.ndarray,
    rule: TwoStageRule,
    content: tuple[int, int],
) -> Detections:
    """Return the objects in regions.

    1. Pairs of region and class whose score is above the threshold.
    2. Their boxes: deltas times `box_delta_scales`, decoded from the region, clipped to the
       content, rounded to float32. Boxes without area go.
    3. Suppressed as in `detect`.

    Parameters
    ----------
    regions : numpy.ndarray
        float32 (N, 4).
    logits : numpy.ndarray
        float32 (N, classes + 1), the background last.
    deltas : numpy.ndarray
        float32 (N, 4 classes).
    rule : TwoStageRule
        The manifest's facts.
    content : tuple of int
        Height and width that boxes are clipped to.
    """
    scores = softmax(logits)[:, :-1]
    rows, classes = (scores > rule.score_threshold).nonzero()
    each = deltas.reshape(len(deltas), -1, 4)[rows, classes].astype(np.float64)
    corners = regions[rows].astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    places = np.concatenate([(corners[:, :2] + corners[:, 2:]) * 0.5, sides], 1)
    boxes = decode(places, each * rule.box_delta_scales, rule.size_delta_limit)
    boxes, order = ranked(boxes, scores[rows, classes], content)
    found = Detections(boxes, scores[rows, classes][order], classes[order])
    return found.taken(suppress(boxes, found.classes, rule.iou_threshold, rule.max_detections))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Compute ``exp(x - largest) / sum``, added up from the first class on, rounded to float32.

    Parameters
    ----------
    logits : numpy.ndarray
        float32 (N, classes). A row with a NaN gives NaN alone.
    """
    x = logits.astype(np.float64)
    known = ~np.isnan(x).any(1, keepdims=True)
    powers = exp(np.where(known, x - x.max(1, initial=-np.inf, keepdims=True), 0))
    total = np.zeros(len(x))
    for column in powers.T:
        total = total + column
    return np.where(known, powers / total[:, None], np.nan).astype(np.float32)
