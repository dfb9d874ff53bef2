"""Latency and memory over image size, batch, variant and threads, each in a new process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from exporters import ModelFile, export_classifier
from interleaved import in_new_process

from sepvit_edge import machine
from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.config.recipe import find_recipe
from sepvit_edge.model.reference import count_macs
from sepvit_edge.model.variants import VARIANTS
from sepvit_edge.profiling.document import Interference
from sepvit_edge.profiling.judge import doubts_about_interference, doubts_about_runs
from sepvit_edge.profiling.runner.interference import Watch
from sepvit_edge.profiling.runner.latency import time_in_turn
from sepvit_edge.profiling.runner.measurement import bind_to_cores
from sepvit_edge.profiling.runner.memory import peak_mb, resident_mb

BASE = {"image_size": 224, "batch": 1, "threads": 1}
# What is changed, one at a time.
SIZES, BATCHES, THREADS = (96, 128, 160, 192, 224, 256, 320, 384), (1, 2, 4, 8, 16), (1, 2)


def settings(variant: str) -> list[dict[str, Any]]:
    """Return every setting once: the base, and one thing changed; no more threads than cores."""
    base = {"variant": variant, **BASE}
    changes = [("image_size", SIZES), ("batch", BATCHES), ("threads", THREADS)]
    found = [base]
    for name, values in [*changes, ("variant", tuple(VARIANTS))]:
        found += [{**base, name: value} for value in values if value != base[name]]
    cores = len(machine.usable_cores())
    return [setting for setting in found if setting["threads"] <= cores]


def measure(runs: int, runtimes: list[str], variant: str) -> dict[str, Any]:
    """Time every setting, and read its memory."""
    rows = []
    for runtime in runtimes:
        for setting in settings(variant):
            model = random_model(setting["variant"], 1000, setting["image_size"])
            with tempfile.TemporaryDirectory() as scratch:
                recipe = find_recipe(runtime)
                file = export_classifier(model, recipe, Path(scratch), setting["batch"])
                found = in_new_process(_measure, file, setting["threads"], runs)
            macs = count_macs(model) * setting["batch"]
            rows.append({"runtime": runtime, **setting, "macs": macs, **found})
            print(rows[-1], flush=True)
    fits = {runtime: _fits([r for r in rows if r["runtime"] == runtime]) for runtime in runtimes}
    return {"variant": variant, "fits": fits, "rows": rows}


def _measure(file: ModelFile, threads: int, runs: int) -> dict[str, Any]:
    """Load and time a model on as many cores as threads, the last ones; `in_new_process`."""
    bind_to_cores(machine.usable_cores()[-threads:])
    before = resident_mb() or 0
    call = file.call(threads)
    watch = Watch()
    times = [t * 1e3 for t in time_in_turn({"model": call}, runs)["model"]]
    reading, (peak, _) = watch.reading(), peak_mb()
    doubts = doubts_about_runs(times)
    doubts += doubts_about_interference(Interference.model_validate(reading)) if reading else []
    low, middle, high = np.percentile(times, [10, 50, 90])
    return {
        "ms": round(float(middle), 2),
        "p10": round(float(low), 2),
        "p90": round(float(high), 2),
        "model_mb": round(sum(f.stat().st_size for f in file.folder.iterdir()) / 1e6, 1),
        "memory_mb": round((peak or 0) - before, 1),
        "doubts": [doubt.sentence for doubt in doubts],
    }


def _fits(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Fit the exponents of time and memory over what was changed."""
    base, fits = rows[0], {}
    for name in ("image_size", "batch", "variant"):
        same = [key for key in ("image_size", "batch", "variant", "threads") if key != name]
        chosen = [row for row in rows if all(row[key] == base[key] for key in same)]
        over = [
            row["macs"] if name == "variant" else row[name] ** (1 + (name == "image_size"))
            for row in chosen
        ]
        fits[name] = {
            kind: round(float(np.polyfit(np.log(over), np.log([r[kind] for r in chosen]), 1)[0]), 3)
            for kind in ("ms", "memory_mb")
        }
    return fits
