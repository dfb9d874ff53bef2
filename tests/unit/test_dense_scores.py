"""Scores of class maps and boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sepvit_edge.data.dense.sample import IGNORED, Objects
from sepvit_edge.errors import SepViTError
from sepvit_edge.postprocess.detection import Detections
from sepvit_edge.scoring.detection import average_precision, shared_boxes
from sepvit_edge.scoring.segmentation import PixelCounts, agreement


def test_the_mean_iou_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, (2, 3, 8, 8))
    counts = PixelCounts(tuple("abcd"))
    for true, guess in zip(truth, predicted, strict=True):
        counts.add(true, guess)
    sides = [(truth == i, predicted == i) for i in range(4)]
    ious = [(a & b).sum() / (a | b).sum() for a, b in sides]
    assert counts.ious == pytest.approx(ious) and counts.mean_iou == pytest.approx(np.mean(ious))
    assert counts.accuracy == (truth == predicted).mean() == agreement(truth, predicted)


def test_ignored_pixels_and_absent_classes_do_not_count() -> None:
    counts = PixelCounts(("a", "b", "c"))
    assert math.isnan(counts.mean_iou) and math.isnan(counts.accuracy)
    counts.add(np.array([[0, 0, 1, IGNORED]], np.uint8), np.array([[0, 1, 1, 2]], np.uint16))
    assert counts.ious.tolist()[:2] == [0.5, 0.5] and math.isnan(counts.ious[2])
    assert counts.mean_iou == 0.5 and counts.counts.sum() == 3


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], np.float32)
    return Detections(boxes, scores, np.array([row[2] for row in rows], np.int64))


LABELS = ("cat", "dog", "owl")
SQUARE = [10.0, 10.0, 30.0, 30.0]


def test_perfect_boxes_have_an_average_precision_of_one() -> None:
    pytest.importorskip("faster_coco_eval", reason="needs [dense]")
    truth = [Objects.of([SQUARE, [0, 0, 5, 5]], [0, 2]), Objects.of([], [])]
    found = [detections((SQUARE, 0.9, 0), ([0, 0, 5, 5], 0.3, 2)), detections()]
    result = average_precision(truth, found, LABELS)
    assert result.ap == pytest.approx(1) and result.ap50 == pytest.approx(1)
    assert result.by_class == pytest.approx({"cat": 1, "owl": 1})


def test_a_box_that_is_half_right_counts_at_low_overlaps_only() -> None:
    pytest.importorskip("faster_coco_eval", reason="needs [dense]")
    truth = [Objects.of([SQUARE], [1])]
    found = [detections(([10, 10, 30, 23], 0.9, 1))]  # an overlap of 0.65
    result = average_precision(truth, found, LABELS)
    assert result.ap50 == pytest.approx(1) and result.ap == pytest.approx(0.4)
    assert average_precision(truth, [detections((SQUARE, 0.9, 0))], LABELS).ap50 == 0
    assert average_precision(truth, [detections()], LABELS).ap50 == 0


def test_a_better_wrong_box_costs_and_one_in_a_crowd_does_not() -> None:
    pytest.importorskip("faster_coco_eval", reason="needs [dense]")
    far = [40.0, 40.0, 60.0, 60.0]
    found = [detections((far, 0.9, 0), (SQUARE, 0.8, 0))]
    assert average_precision([Objects.of([SQUARE], [0])], found, LABELS).ap50 == pytest.approx(0.5)
    crowd = Objects.of([SQUARE, [35, 35, 70, 70]], [0, 0], [False, True])
    assert average_precision([crowd], found, LABELS).ap50 == pytest.approx(1)
    with pytest.raises(SepViTError, match="no image has a box"):
        average_precision([Objects.of([SQUARE], [0], [True])], found, LABELS)


def test_boxes_that_two_models_share() -> None:
    near = [11.0, 10.0, 31.0, 30.0]
    first = detections((SQUARE, 0.9, 0), ([50, 50, 60, 60], 0.5, 1))
    assert shared_boxes(first, first) == 2
    # Two boxes cannot share one, and classes must be the same.
    second = detections((near, 0.8, 0), (SQUARE, 0.7, 0), ([50, 50, 60, 60], 0.5, 2))
    assert shared_boxes(first, second) == 1
    assert shared_boxes(first, detections()) == shared_boxes(detections(), first) == 0
