"""Mask R-CNN: what stands between its networks, against torchvision; its networks' edge form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import dense_model

from sepvit_edge.data.fit import Fit
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.dense.config import BOX_HEAD, MASK_HEAD
from sepvit_edge.model.edge.dense import region_models
from sepvit_edge.model.graph import part_of, trace
from sepvit_edge.package.postprocessing import TwoStageRule
from sepvit_edge.pipeline.answers import finished
from sepvit_edge.postprocess.detection import anchors, decode
from sepvit_edge.postprocess.masks import paste
from sepvit_edge.postprocess.regions import align, region_features, region_levels
from sepvit_edge.postprocess.two_stage import propose, region_boxes, softmax

RULE = TwoStageRule()
SIZE = (64, 96)


def random_boxes(count: int, largest: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-20, 200, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(0.5, largest, (count, 2))], 1).astype(
        np.float32
    )


# Measured: 1e-15.
@pytest.mark.parametrize("cells", [7, 14])
def test_features_of_regions_are_those_of_torchvision(cells: int) -> None:
    ops = pytest.importorskip("torchvision.ops", reason="needs [train]")
    level = np.random.default_rng(1).normal(size=(40, 56, 5)).astype(np.float32)
    boxes = random_boxes(60, 180)
    maps = torch.from_numpy(level).double().permute(2, 0, 1)[None]
    expected = ops.roi_align(maps, [torch.from_numpy(boxes).double()], cells, 1 / 4, 0, True)
    found = np.stack([align(level, box, 4, cells) for box in boxes])
    assert np.abs(found - expected.numpy()).max() < 1e-12
    assert np.abs(found).max() > 1


def test_levels_of_regions_are_those_of_torchvision() -> None:
    poolers = pytest.importorskip("torchvision.ops.poolers", reason="needs [train]")
    boxes = np.concatenate([random_boxes(300, 600), [[0, 0, 112, 112], [0, 0, 447.9, 448]]])
    mapper = poolers.LevelMapper(2, 5)  # a side of 224 comes from the level of stride 16
    expected = mapper([torch.from_numpy(boxes)]).numpy()
    found = region_levels(boxes.astype(np.float32), RULE)
    assert np.array_equal(found, expected) and {*found.tolist()} == {0, 1, 2, 3}
    levels = [np.full((40, 40, 1), i, np.float32) for i in range(4)]
    inside = np.array([[0, 0, 8, 8], [0, 0, 120, 120]], np.float32)
    assert region_features(levels, inside, RULE, 2)[:, 0, 0, 0].tolist() == [0, 1]


def test_proposals_are_those_of_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops", reason="needs [train]")
    rng = np.random.default_rng(2)
    places = anchors(RULE.proposals, SIZE)
    assert len(places) == 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)
    logits = rng.permutation(len(places)).astype(np.float32)[:, None] / 300  # no two alike
    deltas = rng.normal(scale=0.3, size=(len(places), 4)).astype(np.float32)
    boxes = torch.from_numpy(decode(places, deltas, math.log(62.5)).astype(np.float32))
    boxes = ops.clip_boxes_to_image(boxes, (50, 96))
    sizes = [3 * 16 * 24, 3 * 8 * 12, 3 * 4 * 6, 3 * 2 * 3, 3 * 2]
    levels = torch.repeat_interleave(torch.arange(5), torch.tensor(sizes))
    chosen = torch.cat(
        [
            start
            + torch.topk(torch.from_numpy(logits[start : start + size, 0]), min(size, 1000))[1]
            for start, size in zip(np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True)
        ]
    )
    chosen = chosen[ops.remove_small_boxes(boxes[chosen], 1e-9)]
    scores = torch.from_numpy(logits[:, 0])
    kept = ops.batched_nms(boxes[chosen].double(), scores[chosen].double(), levels[chosen], 0.7)
    expected = boxes[chosen[kept]][:1000].numpy()
    found = propose(logits, deltas, RULE, SIZE, (50, 96))
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-3
    few = RULE.model_copy(
        update={"proposals": RULE.proposals.model_copy(update={"max_detections": 5})}
    )
    assert np.array_equal(propose(logits, deltas, few, SIZE, (50, 96)), found[:5])


def test_boxes_of_regions_are_those_of_torchvision() -> None:
    utils = pytest.importorskip("torchvision.models.detection._utils", reason="needs [train]")
    rng = np.random.default_rng(3)
    regions = random_boxes(40, 80, 3) / 4 + 5
    logits = rng.normal(scale=3, size=(len(regions), 4)).astype(np.float32)
    deltas = rng.normal(size=(len(regions), 12)).astype(np.float32)
    every = RULE.model_copy(update={"iou_threshold": 1.0, "max_detections": 1000})
    found = region_boxes(regions, logits, deltas, every, (64, 96))
    scores = torch.softmax(torch.from_numpy(logits).double(), 1)[:, :-1].float().numpy()
    assert np.array_equal(softmax(logits)[:, :-1], scores)
    coder = utils.BoxCoder((10.0, 10.0, 5.0, 5.0), bbox_xform_clip=math.log(62.5))
    boxes = coder.decode_single(torch.from_numpy(deltas), torch.from_numpy(regions))
    boxes = boxes.reshape(len(regions), 3, 4).numpy().clip(0, [96, 64, 96, 64])
    rows, classes = (scores > 0.05).nonzero()
    area = np.prod(boxes[rows, classes, 2:] - boxes[rows, classes, :2], 1) > 0
    rows, classes = rows[area], classes[area]
    order = np.argsort(-scores[rows, classes], kind="stable")
    assert found.classes.tolist() == classes[order].tolist() and len(found) > 20
    assert np.array_equal(found.scores, scores[rows, classes][order])
    assert np.abs(found.boxes - boxes[rows, classes][order]).max() < 1e-3
    logits[0] = np.nan
    assert len(region_boxes(regions, logits, deltas, every, (64, 96))) < len(found)


def test_masks_are_pasted_as_mmdetection_pastes_them() -> None:
    """It samples by `grid_sample` at the centres of the image's pixels."""
    rng = np.random.default_rng(4)
    for box in ([10.3, 5.2, 40.9, 33.3], [-3.0, 20.0, 12.5, 70.0], [7.2, 8.1, 7.9, 8.4]):
        logits = rng.normal(size=(28, 28)).astype(np.float32)
        left, top, right, bottom = box = np.array(box, np.float32).astype(np.float64)
        x = (torch.arange(56) + 0.5 - left) / (right - left) * 2 - 1
        y = (torch.arange(48) + 0.5 - top) / (bottom - top) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None].double()
        cells = torch.sigmoid(torch.from_numpy(logits).double())[None, None]
        expected = (F.grid_sample(cells, grid, align_corners=False)[0, 0] >= 0.5).numpy()
        mask = paste(logits, box.astype(np.float32), (48, 56), 0.5)
        assert np.array_equal(mask.whole((48, 56)), expected)
    assert paste(logits, np.array([5.5, 5, 5.5, 9], np.float32), (48, 56), 0.5).pixels.size == 0


def test_an_object_is_found_where_its_regions_are() -> None:
    """One anchor is certain; the heads answer by what the pyramid holds there."""
    count = len(anchors(RULE.proposals, SIZE))
    logits, deltas = np.full((count, 1), -9, np.float32), np.zeros((count, 4), np.float32)
    place = 3 * (5 * 24 + 8) + 1  # row 5, column 8 of the first level, a square of 32 pixels
    logits[place] = 9
    levels = [np.zeros((2, SIZE[0] // s, SIZE[1] // s), np.float32) for s in (4, 8, 16, 32)]
    levels[0][1] = 1

    def heads(name: str, regions: np.ndarray) -> list[np.ndarray]:
        assert regions.shape[2:] == ((7, 7) if name == BOX_HEAD else (14, 14))
        if name == MASK_HEAD:
            masks = np.full((len(regions), 3, 28, 28), 9, np.float32)
            masks[:, 2, :, :14] = -9  # the right half, of the class that is found
            return [masks]
        classes = np.zeros((len(regions), 4), np.float32)
        classes[:, 3] = 9
        classes[0] = [0, 0, 9 * regions[0, 1].mean(), 0]
        return [classes, np.zeros((len(regions), 12), np.float32)]

    fit = Fit((128, 192), SIZE)
    one = finished([logits, deltas, *levels], RULE, SIZE, fit, heads)
    found = one.found
    assert found is not None and found.masks is not None and found.classes.tolist() == [2]
    assert found.boxes[0] == pytest.approx([32, 8, 96, 72])
    rows, columns = np.nonzero(found.masks[0].whole(one.size))
    assert (rows.min(), rows.max()) == (8, 71) and (columns.min(), columns.max()) == (64, 95)
    assert len(one.shown(0.9999).found) == 0


# Rounding weights to float32 once leaves 130 dB and more.
def test_the_edge_form_of_the_heads_is_the_reference() -> None:
    model = dense_model("mask-rcnn", SIZE)
    heads = {BOX_HEAD: model.roi_head.bbox_head, MASK_HEAD: model.roi_head.mask_head}
    for graph in region_models(model):
        torch.manual_seed(1)
        regions = torch.randn_like(graph.example_input()).double()
        with torch.no_grad():
            wanted, found = heads[graph.name].double()(regions), graph.double()(regions)
        pairs = list(
            zip(*((x if isinstance(x, tuple) else (x,)) for x in (wanted, found)), strict=True)
        )
        assert [tuple(x.shape) for _, x in pairs] == graph.output_shapes()
        assert all(sqnr_db(w.numpy(), f.numpy()) > 110 for w, f in pairs)


def test_graphs_of_the_heads_are_of_rank_4_and_named() -> None:
    for graph in region_models(dense_model("mask-rcnn", (32, 32))):
        parts = set()
        for node in trace(graph).graph.nodes:
            if node.op == "call_function":
                assert getattr(node.meta.get("val"), "ndim", 0) <= 4
                parts.add(part_of(node.name))
        assert parts == {graph.name.replace("-", "_")}
        assert {part_of(name) for name in graph.output_names} == parts
