"""The four variants' relative speeds, beside the paper's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from exporters import ModelFile, export_classifier
from interleaved import time_models

from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.config.recipe import find_recipe
from sepvit_edge.model.reference import count_macs
from sepvit_edge.model.variants import VARIANTS

BASE = "t"
# Tables of ImageNet: images a second on a V100, milliseconds of TensorRT.
THROUGHPUT = {"t": 729.0, "s": 471.0, "b": 302.0}
LATENCY = {"t": 24.5, "s": 34.9, "b": 46.6}


def measure(runs: int, processes: int, runtimes: list[str]) -> dict[str, Any]:
    """Time the variants in turn on every runtime; the times of T are 1."""
    networks = {variant: random_model(variant, 1000, 224) for variant in VARIANTS}
    paper = {
        variant: {
            "macs": count_macs(networks[variant]) / count_macs(networks[BASE]),
            "throughput": THROUGHPUT[BASE] / THROUGHPUT[variant] if variant in THROUGHPUT else None,
            "latency": LATENCY[variant] / LATENCY[BASE] if variant in LATENCY else None,
        }
        for variant in VARIANTS
    }
    rows, doubts, load = [], [], []
    for runtime in runtimes:
        with tempfile.TemporaryDirectory() as scratch:
            models: dict[str, ModelFile] = {}
            for variant, model in networks.items():
                folder = Path(scratch) / variant
                folder.mkdir()
                models[variant] = export_classifier(model, find_recipe(runtime), folder)
                print(f"{variant} for {runtime}: exported", flush=True)
            timing = time_models(models, runs, processes)
        doubts, load = doubts + timing.doubts, load + timing.load
        for variant in models:
            rows.append(
                {
                    "runtime": runtime,
                    "variant": variant,
                    "ms": round(timing.milliseconds(variant), 2),
                    "over_t": timing.ratio(variant, BASE),
                }
            )
    return {"doubts": doubts, "load": load, "paper": paper, "rows": rows}
