"""The sustained run: calls back to back for a long time, as a curve."""

from __future__ import annotations

import time

import numpy as np

from .conditions import frequencies, temperatures, thermal_state, throttle_events
from .energy import EnergyMeter
from .latency import timed
from .output import Output
from .runtimes.interface import Call

PIECE_S = 5.0  # length of the piece that a point stands for


def sustain(
    call: Call, arrays: list, seconds: float, meter: EnergyMeter, output: Output, points: list
) -> None:
    """Run without a pause; a point every few seconds is added to `points` and written."""
    start = time.perf_counter()
    piece = min(PIECE_S, max(seconds / 20, 0.1))
    while (passed := time.perf_counter() - start) < seconds:
        output.progress(f"sustained run: {passed:.0f} of {seconds:.0f} s")
        meter.start()
        times: list = []
        end = time.perf_counter() + min(piece, seconds - passed)
        while not times or time.perf_counter() < end:
            times.append(timed(call, arrays))
        runs_ms = np.asarray(times) * 1e3
        heat, speed = temperatures(), frequencies()
        point = {
            "time_s": time.perf_counter() - start,
            "runs": len(times),
            "p50_ms": float(np.percentile(runs_ms, 50)),
            "p90_ms": float(np.percentile(runs_ms, 90)),
            "max_ms": float(runs_ms.max()),
            "frequency_mhz": sum(speed) / len(speed) if speed else None,
            "temperature_c": max(heat.values()) if heat else None,
            "thermal_state": thermal_state(),
            "throttle_events": throttle_events(),
            "power_w": meter.mean_watts(),
        }
        points.append(point)
        output.point(point)
