"""Print how much SQNR a deliberate fault leaves: what a limit in dB must stand far above.

    python tests/sqnr_faults.py

In torch alone, on the models that the tests use. Each fault is made in every place in turn; the
most that it leaves is what a test sees of it in the worst case. docs/development/testing.md has the
result beside the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from unittest.mock import patch

import numpy as np
import torch
from helpers import FEW, jittered, mini_digits, random_pixels
from torch import nn

from sepvit_edge.data.digits import Digits
from sepvit_edge.data.preprocess import preprocess
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import EdgeModel
from sepvit_edge.model.edge.rows import DSA
from sepvit_edge.model.variants import HEAD_DIM
from sepvit_edge.quantization import scheme
from sepvit_edge.quantization.calibration import calibrate

IMAGES = 4
Fault = Callable[[EdgeModel], Iterator[None]]


def layers_of(edge: EdgeModel) -> list[nn.Module]:
    """Linears and convolutions, float or int8."""
    kinds = (nn.Linear, nn.Conv2d, scheme.Int8Layer)
    return [module for module in edge.modules() if isinstance(module, kinds)]


def twice_the_scale(edge: EdgeModel) -> Iterator[None]:
    """Double the weights of a layer, or the scales of an int8 layer."""
    for layer in layers_of(edge):
        scale = getattr(layer, "weight_scale", layer.weight)
        scale *= 2
        yield
        scale /= 2


def swapped_heads(edge: EdgeModel) -> Iterator[None]:
    """Exchange the values of a DSA's first two heads."""
    swapped = [*range(HEAD_DIM, 2 * HEAD_DIM), *range(HEAD_DIM)]
    for dsa in edge.modules():
        if isinstance(dsa, DSA) and dsa.heads > 1:
            rows = [p for p in dsa.v.state_dict(keep_vars=True).values() if p.ndim]
            kept = [parameter.clone() for parameter in rows]
            for parameter in rows:
                parameter[: 2 * HEAD_DIM] = parameter[swapped]
            yield
            for parameter, before in zip(rows, kept, strict=True):
                parameter.copy_(before)


def stored_as(dtype: torch.dtype) -> Fault:
    """Round all weights to another type."""

    def fault(edge: EdgeModel) -> Iterator[None]:
        for parameter in edge.parameters():
            parameter.copy_(parameter.to(dtype))
        yield

    return fault


def rounded_down(edge: EdgeModel) -> Iterator[None]:
    """Cut off activations instead of rounding them."""

    def cut(x: torch.Tensor, scale: float | None) -> torch.Tensor:
        if scale is None:
            return x
        return (x / scale).floor().clamp(*scheme.ACTIVATION_RANGE) * scale

    with patch.object(scheme, "_fake_quantize", cut):
        yield


def report(title: str, edge: EdgeModel, pixels: np.ndarray, faults: dict[str, Fault]) -> None:
    """Print a row for each fault."""

    def run(edge: EdgeModel) -> list[np.ndarray]:
        return [output.numpy().copy() for output in edge(torch.from_numpy(pixels))]

    right = run(edge)
    for name, fault in faults.items():
        logits, parts = [], []
        wrong = deepcopy(edge)
        for _ in fault(wrong):
            distances = [sqnr_db(*pair) for pair in zip(right, run(wrong), strict=True)]
            if min(distances) < 200:
                logits.append(distances[0])
                parts.append(min(distances))
        print(
            f"| {title} | {name} | {len(logits)} | {np.median(logits):.0f} | {max(logits):.0f} "
            f"| {max(parts):.0f} |"
        )


@torch.no_grad()
def main() -> None:
    """Print a Markdown table."""
    print("| model | fault | places | logits, median | logits, at most | worst part, at most |")
    print("|-|-|-|-|-|-|")
    faults = {"weights of a layer x 2": twice_the_scale, "two heads swapped": swapped_heads}
    stored = {"weights in float16": torch.float16, "weights in bfloat16": torch.bfloat16}
    floats = EdgeModel(jittered(FEW), IMAGES, taps=True)
    report(
        "float, `jittered(FEW)`",
        floats,
        random_pixels(IMAGES, 64),
        faults | {name: stored_as(dtype) for name, dtype in stored.items()},
    )
    model, digits = mini_digits(), Digits("test")
    rule, size = model.config.preprocessing, model.config.image_size
    pixels = np.stack([preprocess(digits[i].image, rule, size) for i in range(IMAGES)])
    integers = EdgeModel(model, IMAGES, taps=True)
    scheme.apply_quantization(integers, calibrate(model, Digits("calibration"), images=48))
    faults["activations cut off"] = rounded_down
    report("int8, `mini_digits()`", integers.double(), pixels, faults)


if __name__ == "__main__":
    main()
