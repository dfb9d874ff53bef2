"""The worked example of docs/development/edge-form.md: a new unit touches no existing code."""

from __future__ import annotations

import re
from unittest.mock import patch

import pytest
import torch
from helpers import FEW, REPOSITORY, jittered, random_pixels

from sepvit_edge.model.edge import FORMS, EdgeModel
from sepvit_edge.model.logits import normalize

DOCUMENT = REPOSITORY / "docs" / "development" / "edge-form.md"


def example() -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.M | re.S)
    return block


def error_of(code: str) -> float:
    """Run the example; return its form's distance from the reference as a share of the range."""
    model = jittered(FEW, image_size=64)
    pixels = torch.from_numpy(random_pixels(2, 64))
    with patch.dict(FORMS), torch.no_grad():
        exec(compile(code, str(DOCUMENT), "exec"), {"__name__": "example"})
        edge = EdgeModel(model, 2, FORMS["my-npu"])
        expected = model(normalize(model, pixels))
        logits = edge(pixels.permute(0, 3, 1, 2).float())
    return float((logits - expected).abs().max() / (expected.max() - expected.min()))


def test_the_example_computes_the_reference() -> None:
    assert error_of(example()) < 1e-5


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("torch.sqrt(variance + self.eps)", "(variance + self.eps)"),
        ("x * self.weight + self.bias", "x * self.weight"),
        ("x - x.mean(-1, keepdim=True)", "x"),
    ],
)
def test_a_mistake_in_the_example_is_noticed(right: str, wrong: str) -> None:
    code = example()
    assert code.count(right) == 1
    assert error_of(code.replace(right, wrong)) > 1e-3


def test_the_example_leaves_the_table_as_it_was() -> None:
    before = dict(FORMS)
    error_of(example())
    assert before == FORMS
