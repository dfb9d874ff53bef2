"""Multiply-accumulates: counted, by the paper's formulas, and as published."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sepvit_edge import create_model
from sepvit_edge.model.dense.backbone import DenseBackbone
from sepvit_edge.model.dense.network import module_macs
from sepvit_edge.model.reference import STRIDES, SepViT, count_parameters
from sepvit_edge.model.variants import VARIANTS, ModelConfig, find_variant, windows

CLASSES = 1000
SIZES = tuple(range(96, 385, 32))
# Windows of 7 x 7 divide the maps of these, so nothing is padded.
DENSE_SIZES = (224, 448, 672, 896)
# Table 2 of the paper: millions of parameters, 10^9 multiply-accumulates at 224 x 224.
PUBLISHED = {"lite": (3.7, 0.6), "t": (31.2, 4.5), "s": (46.6, 7.5), "b": (82.3, 13.1)}
# Tables of ADE20K and COCO: 10^9 multiply-accumulates of convolutions and linears alone.
PUBLISHED_DENSE = {
    ("segmentation", "semantic-fpn", (512, 2048)): {"t": 181, "s": 244, "b": 367},
    ("segmentation", "upernet", (512, 2048)): {"t": 940, "s": 1003, "b": 1128},
    ("detection", "retinanet", (800, 1280)): {"t": 243, "s": 302},
}


def block_macs(tokens: int, channels: int, window: int, separable: bool) -> dict[str, int]:
    """Return the multiply-accumulates of one block, by the paper's formulas.

    Parameters
    ----------
    tokens, channels : int
        Of the map: N and C.
    window : int
        Pixels of a window: M.
    separable : bool
        Whether there are window tokens and PSA.
    """
    N, C, n = tokens, channels, tokens // window
    T = window + separable
    macs = {"linears": 3 * n * T * C**2 + N * C**2 + 8 * N * C**2, "dsa": 2 * n * T**2 * C}
    if separable:
        macs["linears"] += 2 * n * C**2
        macs["psa"] = n**2 * C + n * N * C
    return macs


def formula(variant: str, image_size: int, window: int = 0) -> dict[str, int]:
    """Return the multiply-accumulates of a network by kind.

    Parameters
    ----------
    variant : str
        Name of the variant.
    image_size : int
        Side of the image.
    window : int
        Side of a window where that does not grow with the image: a backbone for dense prediction,
        with PSA in all blocks and no classifier.
    """
    found = find_variant(variant)
    sides = windows(found.depths, 32 * window if window else image_size)
    total = {"convolutions": 0, "linears": 0, "dsa": 0, "psa": 0}
    inputs, kernel = 3, 7
    for stride, dim, blocks in zip(STRIDES, found.dims, sides, strict=True):
        tokens = (image_size // stride) ** 2
        total["convolutions"] += tokens * dim * (kernel**2 * inputs + 9)  # with the encoding
        inputs, kernel = dim, 3
        for side in blocks:
            separable = bool(window) or side**2 < tokens
            for kind, macs in block_macs(tokens, dim, side**2, separable).items():
                total[kind] += macs
    total["linears"] += 0 if window else CLASSES * found.dims[-1]
    return total


def counted(variant: str, image_size: int, window: int = 0) -> tuple[int, int]:
    """Count the multiply-accumulates of a network: all, and those of products in attention."""
    with torch.device("meta"):
        config = ModelConfig(variant, CLASSES, image_size if not window else 32)
        model = DenseBackbone(variant, window) if window else SepViT(config)
        image = torch.empty(1, 3, image_size, image_size)
    macs = module_macs(model, image)
    return macs, macs - module_macs(model, image, attention=False)


def exponent(rows: list[dict[str, Any]], kind: str) -> float:
    """Fit the exponent of multiply-accumulates over pixels."""
    pixels = [row["image_size"] ** 2 for row in rows]
    slope, _ = np.polyfit(np.log(pixels), np.log([row[kind] for row in rows]), 1)
    return round(float(slope), 3)


def series(variant: str, window: int) -> dict[str, Any]:
    """Count one network over image sizes, beside the formulas."""
    rows = []
    for size in DENSE_SIZES if window else SIZES:
        macs, attention = counted(variant, size, window)
        parts = formula(variant, size, window)
        rows.append(
            {
                "image_size": size,
                "counted": macs,
                "counted_attention": attention,
                "formula": sum(parts.values()),
                "formula_attention": parts["dsa"] + parts["psa"],
                **parts,
            }
        )
    kinds = ("counted", "dsa", "psa")
    fitted = {kind: exponent(rows, kind) for kind in kinds}
    return {"variant": variant, "window": window, "exponents": fitted, "rows": rows}


def published() -> list[dict[str, Any]]:
    """Return the paper's tables beside what is counted here."""
    rows = []
    for variant, (millions, macs) in PUBLISHED.items():
        with torch.device("meta"):
            parameters = count_parameters(SepViT(ModelConfig(variant, CLASSES)))
        name = VARIANTS[variant].name
        rows.append({"what": f"{name}, 10^6 parameters", "paper": millions, "here": parameters})
        rows.append({"what": f"{name}, 10^9 MACs", "paper": macs, "here": counted(variant, 224)[0]})
    for (task, head, size), known in PUBLISHED_DENSE.items():
        for variant, macs in known.items():
            with torch.device("meta"):
                model = create_model(variant, task=task, head=head)
                here = module_macs(model, torch.empty(1, 3, *size), attention=False)
            what = f"{VARIANTS[variant].name} with {head}, {size[0]} x {size[1]}, 10^9 MACs"
            rows.append({"what": what, "paper": macs, "here": here})
    for row in rows:
        row["here"] = round(row["here"] / 10 ** (6 if "parameters" in row["what"] else 9), 3)
    return rows


def measure() -> dict[str, Any]:
    """Count everything; nothing is computed, so any machine gives the same."""
    networks = [series(variant, 0) for variant in VARIANTS] + [series("t", 7)]
    return {"networks": networks, "published": published()}
