"""Int8 of segmentation and detection, rounding by rounding.

ExecuTorch shows no roundings: its delegate lets whatever else reads an int8 layer's input read the
integers. test_executorch.py compares its integers in a model without values at borders.
"""

from __future__ import annotations

from functools import cache

import pytest
from helpers import dense_model, random_pixels
from roundings import Noisy, compare, torch_int8

from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.data.glyphs import Glyphs
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.dense import DenseModel
from sepvit_edge.quantization.calibration import calibrate

HEADS = ("semantic-fpn", "upernet", "retinanet")
FLOAT32 = {
    "openvino-int8": "openvino",
    "onnxruntime-int8": "onnxruntime",
    "coreml-int8-float32": "coremltools",
}
QUICK = ("openvino-int8", "semantic-fpn")
PIXELS = random_pixels(1, 96)[:, :64]


@cache
def quantized(head: str) -> DenseModel:
    """A model with the integers that every runtime gets."""
    model = dense_model(head, (64, 96))
    model.quantization = calibrate(model, Glyphs("calibration"), images=2)
    return model


def cases(recipes: dict[str, str]) -> list:
    pairs = [(recipe, head) for recipe in recipes for head in HEADS]
    return [pytest.param(*p, marks=[] if p == QUICK else pytest.mark.slow) for p in pairs]


@pytest.mark.parametrize(("recipe", "head"), cases(FLOAT32))
def test_a_runtime_rounds_as_torch_does_but_at_borders(recipe: str, head: str) -> None:
    pytest.importorskip(FLOAT32[recipe])
    found = compare(quantized(head), load_recipe(recipe), PIXELS)
    rounding = found.rounding
    assert rounding.values > 100_000
    # Measured: up to 54 values in 589,056, at most 1e-4 of a step from the border.
    assert rounding.others < 1e-3 * rounding.values and rounding.farthest < 1e-3
    assert rounding.off_grid < 1e-3
    # Measured: 138 to 144 dB. A doubled scale of one layer leaves at most 59.
    assert min(found.forced_db) > 100


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_float16_between_layers_moves_more_of_them(head: str) -> None:
    """Core ML, as the Neural Engine computes."""
    pytest.importorskip("coremltools")
    found = compare(quantized(head), load_recipe("coreml-int8"), PIXELS)
    rounding = found.rounding
    # Measured: 1 % of the values, at most 0.2 of a step; the largest integers have 0.1 in float16.
    assert rounding.others < 0.03 * rounding.values and rounding.farthest < 0.4
    assert rounding.off_grid < 0.15
    # Measured: 65 to 69 dB.
    assert min(found.forced_db) > 50


@pytest.mark.parametrize("head", HEADS)
def test_a_millionth_of_noise_costs_as_much_as_int8(head: str) -> None:
    """Why outputs are not held to 100 dB: any noise moves some value over a border, then others."""
    model = quantized(head)
    right = torch_int8(model, PIXELS)
    noisy = torch_int8(model, PIXELS, Noisy())
    found = [sqnr_db(*pair) for pair in zip(right, noisy, strict=True)]
    assert all(15 < db < 60 for db in found)
