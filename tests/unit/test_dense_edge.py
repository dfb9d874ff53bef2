"""The edge form of dense models computes what the reference computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import dense_model, random_pixels

from sepvit_edge.errors import SepViTError
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.dense import DenseModel, with_dense_config
from sepvit_edge.model.edge import find_form
from sepvit_edge.model.edge.dense import DenseEdgeModel
from sepvit_edge.model.edge.dense.padded import ManyWindowsPSA
from sepvit_edge.model.graph import part_of, trace

HEADS = ("semantic-fpn", "upernet", "retinanet", "mask-rcnn")


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


@torch.no_grad()
def distances(model: DenseModel, form: str = "rows") -> list[float]:
    """SQNR of every output in float64, so that rounding hides no fault."""
    height, width = model.config.input_size
    pixels = torch.from_numpy(random_pixels(1, max(height, width))[:, :height, :width])
    rule = model.config.preprocessing
    mean, std = (torch.tensor(v).double().reshape(1, 3, 1, 1) for v in (rule.mean, rule.std))
    wanted = as_tuple(model.double()((pixels.permute(0, 3, 1, 2).double() / 255 - mean) / std))
    edge = DenseEdgeModel(model, find_form(form)).double()
    x = pixels if form == "rows" else pixels.permute(0, 3, 1, 2).double()
    if form == "rows":
        edge.input.forward = lambda p: p.permute(0, 3, 1, 2).double() - edge.input.mean
    found = as_tuple(edge(x))
    assert [f.shape for f in found] == [w.shape for w in wanted]
    pairs = zip(wanted, found, strict=True)
    return [sqnr_db(w.numpy().astype(np.float64), f.numpy()) for w, f in pairs]


# A folded weight is float32, as in the exported graph: rounding it once leaves 130 dB and more; a
# forgotten pad, token, norm or bias leaves less than 40.
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("size", "window"), [((64, 96), "paper"), ((160, 96), "paper"), ((128, 256), "fit")]
)
def test_the_edge_form_is_the_reference(head: str, size: tuple[int, int], window: str) -> None:
    assert min(distances(dense_model(head, size, window))) > 110


@pytest.mark.parametrize("form", ["rows-float", "xnnpack"])
def test_other_forms_of_rows_are_the_reference(form: str) -> None:
    assert min(distances(dense_model("semantic-fpn", (64, 96)), form)) > 110


def test_many_windows_are_mixed_without_an_identity() -> None:
    model = dense_model("semantic-fpn", (224, 288))
    edge = DenseEdgeModel(model)
    kinds = {name: type(block.psa) for name, block in edge.blocks()}
    assert kinds["stages.0.blocks.0"] is ManyWindowsPSA
    assert kinds["stages.2.blocks.0"] is not ManyWindowsPSA
    assert min(distances(model)) > 110


def test_rounding_alone_separates_float32() -> None:
    model = dense_model("retinanet", (64, 96))
    edge = DenseEdgeModel(model, find_form("rows-float"))
    x = torch.from_numpy(random_pixels(1, 96)[:, :64]).permute(0, 3, 1, 2).float()
    rule = model.config.preprocessing
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (rule.mean, rule.std))
    with torch.no_grad():
        pairs = zip(model((x / 255 - mean) / std), edge(x), strict=True)
        assert all(sqnr_db(w.numpy(), f.numpy()) > 100 for w, f in pairs)


def test_the_graph_is_static_of_rank_4_and_named() -> None:
    program = trace(DenseEdgeModel(dense_model("upernet", (64, 96))))
    parts, kinds = set(), set()
    for node in program.graph.nodes:
        if node.op == "call_function":
            assert getattr(node.meta.get("val"), "ndim", 0) <= 4
            parts.add(part_of(node.name))
            kinds.add(str(node.target))
    assert {"stages.1.norm", "stages.3.blocks.0.dsa", "head", "input"} <= parts
    assert None not in parts and not any("index" in k or "batch_norm" in k for k in kinds)
    assert "aten.upsample_bilinear2d.vec" in kinds


def test_taps_are_every_part() -> None:
    model = dense_model("retinanet", (64, 96))
    edge = DenseEdgeModel(model, taps=True)
    outputs = edge(edge.example_input())
    assert len(outputs) == 2 + len(edge.tap_names)
    assert edge.tap_names[-6:] == ["stages.3.norm", *(f"neck.{i}" for i in range(5))]
    assert edge.tap_names.count("stages.1.norm") == 1


def test_an_npu_form_is_refused() -> None:
    with pytest.raises(SepViTError, match="ethos-u has no dense prediction; forms that have: rows"):
        DenseEdgeModel(dense_model("semantic-fpn", (64, 96)), find_form("ethos-u"))


def test_windows_are_those_of_the_configuration() -> None:
    model = dense_model("semantic-fpn", (128, 256))
    fitted = with_dense_config(model, replace(model.config, window="fit"))
    windows = DenseEdgeModel(fitted).stages[0].blocks[0].windows
    assert (windows.side, windows.count, windows.padding) == (4, 128, (0, 0))
    windows = DenseEdgeModel(model).stages[3].blocks[0].windows
    assert (windows.count, windows.padding) == (2, (3, 6))
