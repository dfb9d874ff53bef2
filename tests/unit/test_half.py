"""A traced program in float16, as Core AI's converter gets it."""

from __future__ import annotations

import pytest
import torch
from helpers import MINI, jittered

from sepvit_edge.backends.support.half import halved
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import FORMS, EdgeModel
from sepvit_edge.model.graph import macs_by_operation, part_of, trace


@pytest.mark.parametrize("form", ["rows", "rows-float", "maps"])
def test_it_computes_in_half_precision_and_answers_in_single(form: str) -> None:
    edge = EdgeModel(jittered(MINI), 1, FORMS[form])
    program = trace(edge)
    weights = {name: value.clone() for name, value in program.state_dict.items()}
    half = halved(program)

    pixels = (torch.rand(edge.example_input().shape) * 255).to(edge.example_input().dtype)
    with torch.no_grad():
        expected, logits = edge(pixels), half.module()(pixels)
    assert logits.dtype == torch.float32
    # Weights and results of 11 bits; float32 has 120 dB.
    assert 40 < sqnr_db(expected.numpy(), logits.numpy()) < 80
    # Whatever has weights computes in float16, and no weight is left in float32 but the mean.
    single = [name for name, value in half.state_dict.items() if value.dtype == torch.float32]
    assert single == ["input.mean"]
    layers = (torch.ops.aten.linear.default, torch.ops.aten.convolution.default)
    dtypes = {n.meta["val"].dtype for n in half.graph.nodes if n.target in layers}
    assert dtypes == {torch.float16}

    # The program that was given is as it was, and names still tell the parts.
    assert weights.keys() == program.state_dict.keys()
    assert all(torch.equal(program.state_dict[name], value) for name, value in weights.items())
    assert macs_by_operation(half) == macs_by_operation(program)
    assert all(part_of(n.name) for n in half.graph.nodes if n.op == "call_function")


def test_no_weight_of_the_first_convolution_is_subnormal() -> None:
    half = halved(trace(EdgeModel(jittered(MINI), 1, FORMS["rows-float"])))
    weight = half.state_dict["stages.0.patch_embedding.proj.weight"].detach().float()
    nonzero = weight[weight != 0].abs()
    assert (nonzero < 2**-14).float().mean() < 0.01
