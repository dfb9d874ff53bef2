"""Segmentation and detection: latency of edge form, naive export, windows and int8, paired.

    python benchmarks/dense_speed.py --runtime openvino --head semantic-fpn --input-size 256x256

All forms of a runtime are loaded in one process and timed in turn, A B C A B C ...; what is
reported is the ratio of each round to the edge form in fp32 with the paper's windows, since the
machine's speed drifts by more than most differences. Weights are random: nothing is faster or
slower with them. A form that the runtime's own exporter cannot make is reported with its reason.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from edge_form import RUNTIMES, naive
from exporters import Call, lower

from sepvit_edge.checkpoints.choose import random_dense
from sepvit_edge.cli.names import parse_input_size
from sepvit_edge.config.recipe import find_recipe
from sepvit_edge.data.glyphs import Glyphs
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.dense import DenseConfig, DenseModel, with_dense_config
from sepvit_edge.model.dense.config import HEADS
from sepvit_edge.model.edge import find_form
from sepvit_edge.model.edge.make import edge_model
from sepvit_edge.model.logits import normalize
from sepvit_edge.pipeline.lowering import lowering_job
from sepvit_edge.profiling.first_look import time_in_turn
from sepvit_edge.quantization.calibration import calibrate
from sepvit_edge.quantization.scheme import LayerQuantization

EDGE = "edge, fp32, paper"


class FirstOutput(torch.nn.Module):
    """A model with its first output alone: the loaders of naive models return one."""

    def __init__(self, model: DenseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the model."""
        outputs = self.model(x)
        return outputs if isinstance(outputs, torch.Tensor) else torch.cat(outputs, 2)


def edge(model: DenseModel, runtime: str, precision: str, pixels: np.ndarray, threads: int) -> Call:
    """Lower an edge form by the package's own backend and return a call of it."""
    recipe = find_recipe(runtime, precision)
    form, quantization = find_form(recipe.edge.form), None
    if precision == "int8":
        stored = calibrate(model, Glyphs("calibration"), images=2)
        quantization = LayerQuantization(stored, recipe.quantization.classifier)
    with tempfile.TemporaryDirectory() as scratch:
        with torch.no_grad():
            job = lowering_job(model, edge_model(model, 1, form), recipe, quantization)
            file = lower(job, Path(scratch))
        if form.pixels.layout == "NCHW":
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        return file.call(threads, pixels)


def report(runtime: str, head: str, options: argparse.Namespace) -> None:
    """Time one runtime and head, and print its rows."""
    size = parse_input_size(options.input_size)
    head_facts = HEADS[head]
    config = DenseConfig(head_facts.task, head, options.variant, options.classes, size)
    model = random_dense(config)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    x = normalize(model, torch.from_numpy(pixels)).contiguous()
    fitted = with_dense_config(model, replace(config, window="fit"))
    makers = {
        EDGE: lambda: edge(model, runtime, "fp32", pixels, options.threads),
        "naive, fp32, paper": lambda: naive(runtime, FirstOutput(model), x, "f32", options.threads),
        "edge, fp32, fit": lambda: edge(fitted, runtime, "fp32", pixels, options.threads),
        "edge, int8, paper": lambda: edge(model, runtime, "int8", pixels, options.threads),
    }
    calls = {}
    for name, make in makers.items():
        try:
            calls[name] = make()
            calls[name]()
        except (SepViTError, RuntimeError, ValueError, NotImplementedError) as error:
            calls.pop(name, None)
            reason = str(error).splitlines()[0][:80] or type(error).__name__
            print(f"| {runtime} | {head} | {name} | - | {reason} |", flush=True)
    times = time_in_turn(calls, options.runs)
    for name in calls:
        ratios = [a / b for a, b in zip(times[name], times[EDGE], strict=True)]
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        print(
            f"| {runtime} | {head} | {name} | {statistics.median(times[name]) * 1e3:.1f} "
            f"| {middle:.2f} ({low:.2f}-{high:.2f}) |",
            flush=True,
        )


def main() -> None:
    """Parse the options, time, print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--head", action="append", choices=HEADS)
    parser.add_argument("--variant", default="lite")
    parser.add_argument("--input-size", default="256x256", help="HEIGHTxWIDTH")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    print("| runtime | head | form | p50 ms | time over the edge form's, p50 (p10-p90) |")
    print("|-|-|-|-|-|")
    for runtime in options.runtime or RUNTIMES:
        for head in options.head or HEADS:
            report(runtime, head, options)


if __name__ == "__main__":
    main()
