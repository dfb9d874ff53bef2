"""One SepViT block against the two-block structures of Swin, Twins and CSWin, of the same width."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from exporters import export_block, export_naive
from interleaved import time_models
from timm.layers.config import set_exportable
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.twins import Block as TwinsBlock
from torch import Tensor, nn

from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.config.recipe import Recipe, load_recipe
from sepvit_edge.model.dense.network import module_macs
from sepvit_edge.model.edge import Form, find_form
from sepvit_edge.model.edge.folding import fold
from sepvit_edge.model.edge.rows import Block
from sepvit_edge.model.edge.taps import NoTaps

from .cswin import CSWinBlock
from .structures import CSWin, SubsampledBlock, Swin, WindowBlock

# Stages of SepViT-T at 224 with more than one window: side of the map, channels, heads; the same in
# Swin-T and Twins-SVT-B. CSWin-B has this width too, with heads of 24 channels.
STAGES = ((56, 96, 3), (28, 192, 6), (14, 384, 12))
SUBSAMPLING = (8, 4, 2)  # of Twins
STRIPES = (1, 2, 7)  # of CSWin
# ONNX Runtime's Attention is left out: our rewrite of it takes no bias, which Swin has.
RECIPES = {
    "openvino": "openvino-fp32",
    "onnxruntime": "onnxruntime-opset20-fp32",
    "executorch": "executorch-fp32",
}
OURS = "SepViT block"


@dataclass(frozen=True)
class Structure:
    """A structure as its authors' module, and in the style of our edge form.

    Attributes
    ----------
    reference : Module
        Takes (1, H, W, C) or (1, N, C), see `rows`.
    in_our_style : callable
        Makes the module that takes rows, in a form.
    shape : tuple of int
        Of the reference's input.
    """

    reference: nn.Module
    in_our_style: Callable[[Form], nn.Module]
    shape: tuple[int, ...]


class OneBlock(nn.Module):
    """A block of an edge form alone."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        return self.block(x, NoTaps(), "")


class TwinsPair(nn.Module):
    """timm's two blocks of Twins, LSA and GSA, for one size."""

    def __init__(self, first: TwinsBlock, second: TwinsBlock, side: int) -> None:
        super().__init__()
        self.first, self.second, self.size = first, second, (side, side)

    def forward(self, x: Tensor) -> Tensor:
        """(1, N, C) -> (1, N, C)."""
        return self.second(self.first(x, self.size), self.size)


def structures(stage: int) -> dict[str, Structure]:
    """Return SepViT's block and the pairs of a stage, with random weights."""
    side, dim, heads = STAGES[stage]
    rows, image = (1, side**2, dim), (1, side, side, dim)
    model = random_model("t", 1000, 224)
    weights = fold(model).stages[stage].blocks[0]
    with set_exportable(True):  # as timm's own export does: attention is spelled out
        swin = [
            SwinTransformerBlock(dim, (side, side), heads, window_size=7, shift_size=shift)
            for shift in (0, 3)
        ]
        local = TwinsBlock(dim, heads, ws=7)
        subsampled = TwinsBlock(dim, heads, ws=1, sr_ratio=SUBSAMPLING[stage])
    cross = [CSWinBlock(dim, 4 * 2**stage, side, STRIPES[stage]) for _ in range(2)]
    return {
        OURS: Structure(
            model.blocks[stage][0], lambda form: OneBlock(Block(form, weights, 1)), rows
        ),
        "Swin, two blocks": Structure(
            nn.Sequential(*swin), lambda form: Swin(form, *swin, side), image
        ),
        "Twins, two blocks": Structure(
            TwinsPair(local, subsampled, side),
            lambda form: nn.Sequential(
                WindowBlock(form, local, side), SubsampledBlock(form, subsampled, side)
            ),
            rows,
        ),
        "CSWin, two blocks": Structure(
            nn.Sequential(*cross),
            lambda form: nn.Sequential(*(CSWin(form, block, side) for block in cross)),
            image,
        ),
    }


def count(structure: Structure) -> int:
    """Count the multiply-accumulates of a structure, attention's products among them."""
    return module_macs(structure.reference, torch.zeros(structure.shape))


def measure(runs: int, processes: int, runtimes: list[str]) -> dict[str, Any]:
    """Count and time every structure of every stage on every runtime."""
    rows, doubts, load = [], [], []
    for stage, (side, dim, _) in enumerate(STAGES):
        torch.manual_seed(0)
        found = structures(stage)
        macs = {name: count(structure) for name, structure in found.items()}
        for runtime in runtimes:
            recipe = load_recipe(RECIPES[runtime])
            with tempfile.TemporaryDirectory() as scratch:
                models = {}
                for name, structure in found.items():
                    models.update(_exported(name, structure, runtime, recipe, Path(scratch)))
                timing = time_models(models, runs, processes)
            doubts, load = doubts + timing.doubts, load + timing.load
            for name, style in models:
                rows.append(
                    {
                        "runtime": runtime,
                        "map": side,
                        "channels": dim,
                        "structure": name,
                        "style": style,
                        "macs": macs[name],
                        "ms": round(timing.milliseconds((name, style)), 3),
                        "ours_over_this": timing.ratio((OURS, style), (name, style)),
                    }
                )
            print(f"stage {stage + 1} on {runtime}: done", flush=True)
    return {"doubts": doubts, "load": load, "rows": rows}


def _exported(
    name: str, structure: Structure, runtime: str, recipe: Recipe, folder: Path
) -> dict[tuple[str, str], Any]:
    """Export a structure as its authors' module stands, and in our style."""
    models = {}
    x = torch.randn(structure.shape)
    rows = x.reshape(-1, x.shape[-1])
    ours = structure.in_our_style(find_form(recipe.edge.form))
    for style in ("as it stands", "edge form"):
        if style == "as it stands" and name.startswith("CSWin"):
            continue  # not timm's
        place = folder / f"{name} {style}"
        place.mkdir()
        models[name, style] = (
            export_naive(runtime, structure.reference, x, place)
            if style == "as it stands"
            else export_block(ours, rows, recipe, place)
        )
    return models
