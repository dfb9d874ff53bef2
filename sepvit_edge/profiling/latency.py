"""A first look at latency, in the exporting process; `python -m sepvit_edge.profile` measures."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass

import numpy as np

from ..package import PackageSession

_WARM_UP, _RUNS = 5, 50


@dataclass(frozen=True)
class Latency:
    """Time of one call.

    Attributes
    ----------
    p50_ms : float
        Median in milliseconds.
    runs : int
        How many calls were timed.
    threads : int
        Of the runtime.
    """

    p50_ms: float
    runs: int
    threads: int


def available_threads() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_latency(session: PackageSession, threads: int) -> Latency:
    """Time a loaded package on one batch of its golden pixels.

    Parameters
    ----------
    session : PackageSession
        Opened with `threads`.
    threads : int
        For the record.
    """
    batch = session.package.manifest.input.shape[0]
    pixels = np.resize(golden := session.package.golden()["pixels"], (batch, *golden.shape[1:]))
    times = []
    for _ in range(_WARM_UP + _RUNS):
        start = time.perf_counter()
        session.run_pixels(pixels)
        times.append(time.perf_counter() - start)
    return Latency(round(statistics.median(times[_WARM_UP:]) * 1e3, 2), _RUNS, threads)
