"""SepViT-T without its position encoding, grouped attention, window tokens and PSA."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from exporters import lower
from interleaved import time_models
from torch import Tensor, nn

from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.model.edge import EdgeModel, Form, find_form
from sepvit_edge.model.edge.rows import DSA, PSA, Block
from sepvit_edge.model.edge.weights import (
    BlockWeights,
    DSAWeights,
    LayerWeights,
    PSAWeights,
    Windows,
)
from sepvit_edge.model.graph import macs_by_operation
from sepvit_edge.model.variants import HEAD_DIM
from sepvit_edge.pipeline.lowering import lowering_job

FULL, AGAIN = "full", "full, loaded again"
GROUP = 14  # side of a group at 224 x 224
RECIPES = {
    "openvino": "openvino-fp32",
    "onnxruntime": "onnxruntime-fp32",
    "executorch": "executorch-fp32",
}


class MeanPSA(PSA):
    """PSA whose tokens are the means of the windows, in place of learned ones."""

    def __init__(self, form: Form, weights: Any, windows: Windows, batch: int) -> None:
        super().__init__(form, weights, windows, batch)
        # A product: XNNPACK has no mean over rows.
        shape = (batch * windows.count, 1, windows.pixels)
        self.average = nn.Buffer(torch.full(shape, 1 / windows.pixels))

    def forward(self, x: Tensor) -> Tensor:
        """(B n M, C) -> the same."""
        n, h, C = self.batch * self.windows, self.heads, x.shape[1]
        x = x.reshape(n, -1, C)
        attention = self.attention(torch.bmm(self.average, x)) + self.identity
        pixels = x.reshape(n, -1, h, HEAD_DIM)
        return self.mixed(attention, pixels, self.batch).reshape(-1, C)


def without_encoding(form: Form) -> Form:
    """Leave out the conditional position encoding."""
    return replace(form, encoding=lambda weights, sides: nn.Identity())


def without_tokens(form: Form) -> Form:
    """Take the means of the windows as their tokens, behind DSA."""

    def dsa(form: Form, weights: DSAWeights, windows: Windows, batch: int) -> DSA:
        return DSA(form, replace(weights, window_tokens=None), windows, batch)

    return replace(form, dsa=dsa, psa=MeanPSA)


def without_psa(form: Form) -> Form:
    """Leave out PSA, and the window tokens, which nothing else reads."""

    def block(form: Form, weights: BlockWeights, batch: int) -> Block:
        dsa = replace(weights.dsa, window_tokens=None)
        return Block(form, replace(weights, dsa=dsa, psa=None), batch)

    return replace(form, block=block)


def without_groups(form: Form) -> Form:
    """Give grouped blocks the windows of the others: DSA and PSA there too."""

    def block(form: Form, weights: BlockWeights, batch: int) -> Block:
        grouped, norm = weights.windows, weights.dsa.norm
        if grouped.side != GROUP:
            return Block(form, weights, batch)
        windows = Windows(2 * grouped.rows, 2 * grouped.columns, GROUP // 2)
        tokens = torch.zeros(windows.count, 1, norm.width)
        linear = LayerWeights(torch.eye(norm.width), torch.zeros(norm.width))
        psa = weights.psa or PSAWeights(norm, linear, linear)
        dsa = replace(weights.dsa, window_tokens=tokens)
        return Block(form, replace(weights, windows=windows, dsa=dsa, psa=psa), batch)

    return replace(form, block=block)


ABLATIONS: dict[str, Callable[[Form], Form]] = {
    FULL: lambda form: form,
    "without CPE": without_encoding,
    "without GSA": without_groups,
    "without learned tokens": without_tokens,
    "without PSA": without_psa,
}


def measure(runs: int, processes: int, runtimes: list[str], variant: str) -> dict[str, Any]:
    """Count and time SepViT and its ablations on every runtime.

    The full model is loaded twice: by how much it differs from itself tells what a ratio is worth.
    """
    model = random_model(variant, 1000, 224)
    rows, doubts, load = [], [], []
    for runtime in runtimes:
        recipe = load_recipe(RECIPES[runtime])
        models, macs = {}, {}
        with tempfile.TemporaryDirectory() as scratch:
            for name, change in ABLATIONS.items():
                edge = EdgeModel(model, 1, change(find_form(recipe.edge.form)))
                with torch.no_grad():
                    job = lowering_job(model, edge, recipe)
                folder = Path(scratch) / name
                folder.mkdir()
                models[name] = lower(job, folder)
                macs[name] = sum(macs_by_operation(job.program).values())
                print(f"{name} for {runtime}: exported", flush=True)
            models[AGAIN], macs[AGAIN] = models[FULL], macs[FULL]
            timing = time_models(models, runs, processes)
        doubts, load = doubts + timing.doubts, load + timing.load
        for name in models:
            rows.append(
                {
                    "runtime": runtime,
                    "variant": variant,
                    "form": name,
                    "macs": macs[name],
                    "ms": round(timing.milliseconds(name), 2),
                    "over_full": timing.ratio(name, FULL),
                }
            )
    return {"doubts": doubts, "load": load, "rows": rows}
