"""Class maps and boxes from raw outputs, against torch and torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from sepvit_edge.data.fit import Fit
from sepvit_edge.data.preprocess import fit_image
from sepvit_edge.package.postprocessing import DetectionRule, SegmentationRule
from sepvit_edge.postprocess.detection import anchors, decode, detect, level_sizes, suppress
from sepvit_edge.postprocess.exponential import exp, sigmoid
from sepvit_edge.postprocess.segmentation import class_map


def test_the_exponential_is_that_of_the_library() -> None:
    x = np.linspace(-88, 88, 10_001)
    assert (np.abs(exp(x) / np.exp(x) - 1) < 3e-14).all()
    assert exp(np.array([1e9, -1e9])).tolist() == exp(np.array([88.0, -88.0])).tolist()
    logits = np.linspace(-30, 30, 1001, dtype=np.float32)
    expected = torch.sigmoid(torch.from_numpy(logits).double()).float().numpy()
    assert np.array_equal(sigmoid(logits), expected)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (16, 3)])
def test_class_maps_are_those_of_torch(shape: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits).double()[None], scale_factor=4, mode="bilinear"
    ).argmax(1)[0]
    found = class_map(logits, SegmentationRule())
    assert found.dtype == np.uint16 and np.array_equal(found, expected.numpy())


def test_equal_logits_give_the_lower_class_and_nan_none() -> None:
    logits = np.zeros((3, 2, 2), np.float32)
    logits[1:] = 1
    assert (class_map(logits, SegmentationRule()) == 1).all()
    logits[1] = np.nan
    assert (class_map(logits, SegmentationRule()) == 2).all()


def test_anchors_go_by_level_row_column_ratio_and_scale() -> None:
    rule = DetectionRule()
    assert level_sizes(rule, (96, 160)) == [(12, 20), (6, 10), (3, 5), (2, 3), (1, 2)]
    found = anchors(rule, (96, 160))
    assert len(found) == 9 * (240 + 60 + 15 + 6 + 2)
    # ratio 1/2 first: twice as wide as high, with the area of (4 * 8)^2
    assert found[0] == pytest.approx([0, 0, 32 * math.sqrt(2), 32 / math.sqrt(2)])
    assert found[1][2:] == pytest.approx(found[0][2:] * 2 ** (1 / 3))
    assert found[3] == pytest.approx([0, 0, 32, 32])
    assert found[9 + 6] == pytest.approx([8, 0, 32 / math.sqrt(2), 32 * math.sqrt(2)])
    assert found[9 * 20 + 3] == pytest.approx([0, 8, 32, 32])
    assert found[9 * 240 + 3] == pytest.approx([0, 0, 64, 64])
    assert found[-1] == pytest.approx([128, 0, 574.7005687, 1149.401137])


def test_deltas_are_decoded_as_torchvision_decodes_them() -> None:
    det_utils = pytest.importorskip("torchvision.models.detection._utils", reason="needs [train]")
    rng = np.random.default_rng(1)
    places = anchors(DetectionRule(), (64, 64))[::7]
    deltas = rng.normal(scale=2, size=places.shape).astype(np.float32)
    deltas[0, 2], deltas[1, 3] = 9, -9
    half = places[:, 2:] / 2
    corners = np.concatenate([places[:, :2] - half, places[:, :2] + half], 1)
    coder = det_utils.BoxCoder((1.0, 1.0, 1.0, 1.0), bbox_xform_clip=math.log(62.5))
    expected = coder.decode_single(torch.from_numpy(deltas.copy()), torch.from_numpy(corners))
    found = decode(places, deltas, math.log(62.5))
    low = deltas[:, 2:].min(1) > -math.log(62.5)  # mmdet clips below too, torchvision only above
    assert low.sum() > 50 and not low[1]
    assert found[low] == pytest.approx(expected.numpy()[low], rel=1e-5, abs=1e-3)
    assert found[1, 3] - found[1, 1] == pytest.approx(places[1, 3] / 62.5)


def test_suppression_is_that_of_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops", reason="needs [train]")
    rng = np.random.default_rng(2)
    corners = rng.uniform(0, 60, (400, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 40, (400, 2))], 1).astype(np.float32)
    classes, scores = rng.integers(0, 3, 400), np.sort(rng.random(400))[::-1].copy()
    for threshold in (0.1, 0.5, 0.8):
        expected = ops.batched_nms(
            torch.from_numpy(boxes).double(),
            torch.from_numpy(scores),
            torch.from_numpy(classes),
            threshold,
        ).tolist()
        assert suppress(boxes, classes, threshold, 400) == expected
        assert suppress(boxes, classes, threshold, 10) == expected[:10]


def outputs(size: tuple[int, int], classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of a detector that sees nothing."""
    count = len(anchors(DetectionRule(), size))
    return np.full((count, classes), -9, np.float32), np.zeros((count, 4), np.float32)


def test_a_box_is_found_where_its_anchor_is() -> None:
    logits, deltas = outputs((64, 96))
    place = (3 * 12 + 5) * 9 + 3  # row 3, column 5, ratio 1, the smallest: 32 x 32 at (40, 24)
    logits[place, 2] = 2
    deltas[place] = [0.25, 0, 0, math.log(0.75)]
    logits[place + 9, 2] = 1  # a pixel to the right: overlaps by 3/4, of the same class
    logits[place + 9, 0] = 1  # of another class
    found = detect(logits, deltas, DetectionRule(), (64, 96))
    assert found.classes.tolist() == [2, 0]
    assert found.boxes[0] == pytest.approx([32, 12, 64, 36])
    assert found.scores == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])
    assert found.boxes[1].tolist() == [32, 8, 64, 40]


def test_boxes_are_clipped_to_the_image_and_limited() -> None:
    logits, deltas = outputs((64, 64), 1)
    logits[::50] = np.linspace(0, 3, len(logits[::50]))[:, None]
    rule = DetectionRule(iou_threshold=1.0, max_detections=7)
    found = detect(logits, deltas, rule, (64, 64), (40, 50))
    assert len(found) == 7 and (np.diff(found.scores) <= 0).all()
    assert found.boxes[:, [0, 2]].max() <= 50 and found.boxes[:, [1, 3]].max() <= 40
    assert found.boxes.min() >= 0


def test_thresholds_and_candidates() -> None:
    logits, deltas = outputs((64, 64), 2)
    logits[:40, 1] = 0
    rule = DetectionRule(iou_threshold=1.0)
    assert len(detect(logits, deltas, rule, (64, 64))) == 40
    assert (
        len(detect(logits, deltas, rule.model_copy(update={"score_threshold": 0.5}), (64, 64))) == 0
    )
    few = rule.model_copy(update={"level_candidates": 11})
    assert len(detect(logits, deltas, few, (64, 64))) == 11
    logits[:40] = np.nan
    deltas[:40] = np.nan
    assert len(detect(logits, deltas, rule, (64, 64))) == 0
    logits[:40] = 0
    assert len(detect(logits, deltas, rule, (64, 64))) == 0


def test_an_image_fits_into_an_input_with_the_mean_colour_around() -> None:
    image = np.full((50, 100, 3), 200, np.uint8)
    pixels, fit = fit_image(image, (0.485, 0.456, 0.406), (64, 64))
    assert fit == Fit((50, 100), (32, 64))
    assert (pixels[:32] == 200).all()
    assert (pixels[32:] == [124, 116, 104]).all()
    tall, fit = fit_image(Image.new("L", (3, 400)), (0.5, 0.5, 0.5), (64, 96))
    assert fit.content == (64, 1) and (tall[:, 0] == 0).all() and (tall[:, 1:] == 128).all()


def test_the_way_into_an_input_and_back() -> None:
    fit = Fit.of((50, 100), (64, 64))
    boxes = np.array([[10, 20, 40, 50]], np.float32)
    assert fit.boxes_in(boxes).tolist() == [[6.4, 12.8, 25.6, 32.0]]
    assert fit.boxes_back(fit.boxes_in(boxes)).tolist() == boxes.tolist()
    classes = np.zeros((50, 100), np.uint8)
    classes[25:, :50] = 7
    inside = fit.map_in(classes, (64, 64), 255)
    assert (inside[32:] == 255).all()
    assert (inside[16:32, :32] == 7).all() and (inside[:16] == 0).all()
    assert np.array_equal(fit.map_back(inside), classes)
