"""What int8 and bfloat16 are worth on this machine: latency of packages, timed in turn.

    python benchmarks/int8_speed.py --variant t --variant lite

All packages of a runtime are loaded in one process; the ratio to fp32 of each round is reported.
Weights are random: quantisation changes no time with them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.config.recipe import QuantizationOptions, Recipe, recipes_for
from sepvit_edge.machine import present_features
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.export import export_package
from sepvit_edge.profiling.first_look import time_in_turn


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    runtimes = ["executorch", "onnxruntime", "openvino"]
    parser.add_argument("--runtime", action="append", choices=runtimes)
    parser.add_argument("--variant", action="append", choices=["lite", "t", "s", "b"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=40)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| runtime | variant | recipe | p50 ms | fp32 over it, p50 (p10-p90) |")
    print("|-|-|-|-|-|")
    pixels = np.random.default_rng(0).integers(
        0, 256, (1, arguments.image_size, arguments.image_size, 3), dtype=np.uint8
    )
    for runtime in arguments.runtime or runtimes:
        for variant in arguments.variant or ["t", "lite"]:
            model = random_model(variant, 1000, arguments.image_size, ())
            with tempfile.TemporaryDirectory() as scratch:
                calls = {}
                for name, recipe in recipes_to_time(runtime).items():
                    few = QuantizationOptions(calibration_images=2)
                    recipe = recipe.model_copy(update={"quantization": few})
                    export_package(model, recipe=recipe, output=Path(scratch) / name, images=2)
                for folder in sorted(Path(scratch).iterdir()):
                    session = open_package(folder, arguments.threads)
                    calls[folder.name] = lambda session=session: session.run_pixels(pixels)[0]
                times = time_in_turn(calls, arguments.runs)
                # ExecuTorch changes its number of threads only while nothing is loaded.
                calls.clear()
                del session
            for name, own in times.items():
                print_row(runtime, variant, name, own, times[f"{runtime}-fp32"])


def recipes_to_time(runtime: str) -> dict[str, Recipe]:
    """Return fp32, int8, and what this CPU's features make faster."""
    return {
        name: recipe
        for name, recipe in recipes_for(present_features()).items()
        if recipe.target == runtime and (recipe.cpu_features or recipe.precision != "fp16")
    }


def print_row(
    runtime: str, variant: str, name: str, own: Sequence[float], fp32: Sequence[float]
) -> None:
    """Print a recipe's time, and the ratio of each pair of times."""
    ratios = sorted(a / b for a, b in zip(fp32, own, strict=True))
    p10, p50, p90 = np.percentile(ratios, [10, 50, 90])
    print(
        f"| {runtime} | {variant} | {name.removeprefix(runtime + '-')} | "
        f"{statistics.median(own) * 1e3:.2f} | {p50:.2f} ({p10:.2f}-{p90:.2f}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
