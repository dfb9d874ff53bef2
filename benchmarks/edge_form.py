"""What the edge form is worth: latency beside the reference exported as it stands, paired.

    python benchmarks/edge_form.py --runtime openvino --variant lite --variant t

Both models are loaded in one process and timed in turn, A B A B ...; what is reported is the
ratio of each pair, since the machine's speed drifts by more than most differences. With
`--principles` the edge form is also timed with each of its principles undone, with `--form` in
another form than the runtime's own.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from exporters import Call, export_classifier, export_naive
from principles import UNDONE, without

from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.config.recipe import Recipe, find_recipe
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.edge import FORMS, Form, find_form
from sepvit_edge.model.logits import normalize
from sepvit_edge.model.reference import SepViT, count_macs
from sepvit_edge.model.variants import find_variant
from sepvit_edge.profiling.first_look import time_in_turn

RUNTIMES = ("executorch", "onnxruntime", "openvino")


class GemmChain(torch.nn.Module):
    """The model's own linears and nothing between them: what the runtime's GEMM can reach."""

    def __init__(self, model: SepViT) -> None:
        super().__init__()
        variant = find_variant(model.config.variant)
        self.shapes = [(side**2, dim) for side, dim in zip(model.sides, variant.dims, strict=True)]
        self.chains = torch.nn.ModuleList()
        for dim, depth in zip(variant.dims, variant.depths, strict=True):
            widths = [dim] * 5 + [4 * dim, dim]  # q, k, v, projection, MLP
            linears = (
                torch.nn.Linear(a, b, bias=False) for _ in range(depth) for a, b in pairwise(widths)
            )
            self.chains.append(torch.nn.Sequential(*linears))
        self.macs = sum(
            rows * linear.weight.numel()
            for (rows, _), chain in zip(self.shapes, self.chains, strict=True)
            for linear in chain
        )

    def example_input(self) -> torch.Tensor:
        """Rows of the first stage, as wide as the last."""
        return torch.randn(self.shapes[0][0], self.shapes[-1][1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each stage's chain on a slice of the input; the sums keep every product alive."""
        parts = zip(self.shapes, self.chains, strict=True)
        sums = [chain(x[:rows, :dim]).sum(1)[:1] for (rows, dim), chain in parts]
        return torch.cat(sums)


def naive(
    runtime: str, model: torch.nn.Module, x: torch.Tensor, precision: str, threads: int
) -> Call:
    """Export a model as it stands and return a call of it; `precision` is OpenVINO's hint."""
    with tempfile.TemporaryDirectory() as scratch:
        file = export_naive(runtime, model, x, Path(scratch))
        if runtime == "openvino":
            file = replace(file, options={"inference_precision": precision})
        return file.call(threads, x.numpy())


def edge(model: SepViT, recipe: Recipe, pixels: np.ndarray, threads: int, form: Form) -> Call:
    """Lower an edge form by the package's own backend and return a call of it."""
    with tempfile.TemporaryDirectory() as scratch:
        file = export_classifier(model, recipe, Path(scratch), form=form)
        if form.pixels.layout == "NCHW":
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        return file.call(threads, pixels)


def main() -> None:
    """Parse the options, time, print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--variant", action="append")
    parser.add_argument("--precision", action="append", help="OpenVINO's hint: f32, bf16, device")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--form", action="append", default=[], choices=FORMS, help="also this one")
    parser.add_argument("--principles", action="store_true")
    parser.add_argument("--gemm", action="store_true", help="also the share of the GEMM rate")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    print("| runtime | variant | precision | form | p50 ms | speed-up p50 (p10-p90) | error |")
    print("|-|-|-|-|-|-|-|")
    for runtime in options.runtime or RUNTIMES:
        precisions = options.precision or ["f32"] if runtime == "openvino" else ["f32"]
        for variant in options.variant or ["lite", "t"]:
            for precision in precisions:
                report(runtime, variant, precision, options)


def report(runtime: str, variant: str, precision: str, options: argparse.Namespace) -> None:
    """Time one runtime, variant and precision, and print its rows."""
    model = random_model(variant, 1000, options.image_size, ())
    size = options.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    x = normalize(model, torch.from_numpy(pixels)).contiguous()
    recipe = find_recipe(runtime)
    if runtime == "openvino":
        changed = recipe.options | {"inference_precision": precision}
        recipe = recipe.model_copy(update={"options": changed})
    with torch.no_grad():
        reference = model(x).numpy()
    calls = {"naive": naive(runtime, model, x, precision, options.threads)}
    own = find_form(recipe.edge.form)
    calls["edge"] = edge(model, recipe, pixels, options.threads, own)
    for name in options.form:
        calls[f"edge, {name}"] = edge(model, recipe, pixels, options.threads, FORMS[name])
    for name in UNDONE if options.principles else ():
        try:
            form = without(own, name)
            calls[f"edge without {name}"] = edge(model, recipe, pixels, options.threads, form)
        except (SepViTError, RuntimeError, ValueError) as error:
            print(f"| {runtime} | {variant} | {precision} | without {name} | {error} | | |")
    if options.gemm:
        chain = GemmChain(model).eval()
        calls["gemm"] = naive(runtime, chain, chain.example_input(), precision, options.threads)
    times = time_in_turn(calls, options.runs)
    if options.gemm:
        del calls["gemm"]
        share = count_macs(model) / chain.macs * np.divide(times["gemm"], times["edge"])
        low, middle, high = np.percentile(share, [10, 50, 90])
        print(
            f"| {runtime} | {variant} | {precision} | share of the GEMM rate "
            f"| | {middle:.2f} ({low:.2f}-{high:.2f}) | |"
        )
    for name, call in calls.items():
        ratios = [a / b for a, b in zip(times["naive"], times[name], strict=True)]
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        error = np.abs(call() - reference).max() / np.ptp(reference)
        print(
            f"| {runtime} | {variant} | {precision} | {name} "
            f"| {statistics.median(times[name]) * 1e3:.2f} "
            f"| {middle:.2f} ({low:.2f}-{high:.2f}) | {error:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
