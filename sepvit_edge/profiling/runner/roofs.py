"""The machine's limits, and the programs that the host lowered to find them (the kit)."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from pathlib import Path

import numpy as np

from ... import machine
from .latency import timed
from .runtimes.interface import Call, Runtime, operations

KIT_RUNS = 20  # unless the operations are timed in another number of runs


def measure_bandwidth(threads: int) -> tuple:
    """Time STREAM's add, c = a + b, on arrays beyond any cache.

    Returns
    -------
    rate : float
        10^9 bytes per second, the best of six.
    method : str
        What was timed.
    """
    memory = re.search(r"MemAvailable:\s+(\d+)", machine.read_text("/proc/meminfo") or "")
    available = int(memory.group(1)) * 1024 if memory else 1 << 30
    size = min(64 << 20, available // 12) // 8 // threads * threads
    a, b, c = np.ones(size), np.ones(size), np.zeros(size)
    slices = [slice(i * size // threads, (i + 1) * size // threads) for i in range(threads)]

    def add(part: slice) -> None:
        np.add(a[part], b[part], out=c[part])  # numpy lets other threads run meanwhile

    best = math.inf
    for _ in range(6):
        workers = [threading.Thread(target=add, args=(part,)) for part in slices]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = min(best, time.perf_counter() - start)
    method = f"STREAM add of {3 * size * 8 / 1e6:.0f} MB, {threads} threads, best of 6"
    return 3 * size * 8 / best / 1e9, method


def time_kit(runtime: Runtime, kit: Path, call: Call, arrays: list, runs: int) -> tuple:
    """Time the programs that the host lowered beside the package.

    Returns
    -------
    roof : dict or None
        Rate of the chain of products.
    operations : dict or None
        Times of the model's parts, with the time of the whole beside them.
    """
    content = json.loads((kit / "kit.json").read_text(encoding="utf-8"))
    roof = _time_products(runtime, kit, content["gemm"], runs) if content["gemm"] else None
    parts = _time_parts(runtime, kit, content, call, arrays, runs) if content["parts"] else None
    return roof, parts


def _time_products(runtime: Runtime, kit: Path, gemm: dict, runs: int) -> dict:
    chain, inputs = runtime.load(kit / gemm["file"]), _zeros(gemm["inputs"])
    for _ in range(3):
        chain(inputs)
    seconds = float(np.median([timed(chain, inputs) for _ in range(runs)]))
    return {"gmacs_per_s": gemm["macs"] / seconds / 1e9, "gmacs_method": gemm["method"]}


def _time_parts(
    runtime: Runtime, kit: Path, content: dict, call: Call, arrays: list, runs: int
) -> dict:
    """Time each part and the whole in turn.

    Each is run twice and timed the second time: at their first runs the parts of an int8
    SepViT-Lite add up to 125 % of the whole on one thread.
    """
    calls = []
    for part in content["parts"]:
        program = runtime.load(kit / part["file"], keeps_output=False)
        calls.append((part["name"], part["kind"], program, _zeros(part["inputs"])))
    wholes: list = []
    times: dict = {}
    for _ in range(runs):
        call(arrays)
        wholes.append(timed(call, arrays))
        for name, kind, part, inputs in calls:
            part(inputs)
            times.setdefault((name, kind, "alone"), []).append(timed(part, inputs))
    # Medians, since the first runs are far slower.
    items = {key: float(np.median(each)) * 1e6 * runs for key, each in times.items()}
    return operations(content["parts_method"], runs, float(np.median(wholes)) * runs, items)


def _zeros(inputs: list) -> list:
    """Return arrays of the shapes and dtypes that a program takes."""
    return [np.zeros(entry["shape"], entry["dtype"]) for entry in inputs]
