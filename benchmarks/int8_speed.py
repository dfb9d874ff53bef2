"""What int8 is worth on this machine: latency of fp32 and int8 packages, timed in turn.

    python benchmarks/int8_speed.py --variant t --variant lite

Both packages of a runtime are loaded in one process; the ratio of each pair is reported. Weights
are random: quantisation changes no time with them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from pathlib import Path

import numpy as np

from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.config.recipe import QuantizationOptions, find_recipe
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
    print("| runtime | variant | fp32 p50 ms | int8 p50 ms | fp32 over int8, p50 (p10-p90) |")
    print("|-|-|-|-|-|")
    pixels = np.random.default_rng(0).integers(
        0, 256, (1, arguments.image_size, arguments.image_size, 3), dtype=np.uint8
    )
    for runtime in arguments.runtime or runtimes:
        for variant in arguments.variant or ["t", "lite"]:
            model = random_model(variant, 1000, arguments.image_size, ())
            with tempfile.TemporaryDirectory() as scratch:
                calls = {}
                for precision in ("fp32", "int8"):
                    folder = Path(scratch) / precision
                    recipe = find_recipe(runtime, precision).model_copy(
                        update={"quantization": QuantizationOptions(calibration_images=2)}
                    )
                    export_package(model, recipe=recipe, output=folder, images=2)
                for precision in ("fp32", "int8"):
                    session = open_package(Path(scratch) / precision, arguments.threads)
                    calls[precision] = lambda session=session: session.run_pixels(pixels)[0]
                times = time_in_turn(calls, arguments.runs)
                # ExecuTorch changes its number of threads only while nothing is loaded.
                calls.clear()
                del session
            ratios = [a / b for a, b in zip(times["fp32"], times["int8"], strict=True)]
            low, *_, high = statistics.quantiles(ratios, n=10)
            floats, integers = (statistics.median(times[p]) * 1e3 for p in ("fp32", "int8"))
            print(
                f"| {runtime} | {variant} | {floats:.2f} | {integers:.2f} | "
                f"{statistics.median(ratios):.2f} ({low:.2f}-{high:.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
