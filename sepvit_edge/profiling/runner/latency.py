"""Times of calls: one call, the warm-up, and the distribution of many."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

STABLE = 0.02  # warm-up ends when the medians of two pieces differ by less
PIECE = 10  # runs of such a piece
WARMUP_RUNS, WARMUP_S = 200, 30.0
WARMUP_ROUNDS = 5  # of calls in turn


def timed(call: Callable[[Any], Any], argument: Any) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    call(argument)
    return time.perf_counter() - start


def warm_up(call: Callable[[Any], Any], arrays: list, limit: int) -> tuple:
    """Run until the medians of two pieces agree; return the runs, and whether they agreed."""
    times: list = []
    start = time.perf_counter()
    while len(times) < limit and time.perf_counter() - start < WARMUP_S:
        times.append(timed(call, arrays))
        if len(times) >= 2 * PIECE and len(times) % PIECE == 0:
            before, now = np.median(times[-2 * PIECE : -PIECE]), np.median(times[-PIECE:])
            if abs(now - before) <= STABLE * before:
                return len(times), True
    return len(times), False


def time_in_turn(
    calls: Mapping[str, Callable[[], object]],
    runs: int,
    seconds: float = 0,
    clock: Callable[[], Any] = time.perf_counter,
) -> dict:
    """Time calls in turn, so that a disturbance affects all of them.

    Parameters
    ----------
    calls : mapping
        Calls by name.
    runs, seconds : int, float
        Least number of rounds, and their least duration.
    clock : callable
        What is read before and after each call; several clocks as an array.

    Returns
    -------
    dict
        Lists of seconds by name.
    """
    times: dict = {name: [] for name in calls}
    for _ in range(WARMUP_ROUNDS):
        for call in calls.values():
            call()
    order = list(calls.items())
    start, rounds = time.perf_counter(), 0
    while rounds < runs or time.perf_counter() - start < seconds:
        # Forwards and backwards: whatever follows the slower one is slower too.
        for name, call in reversed(order) if rounds % 2 else order:
            call()  # the threads of the one before still spin
            before = clock()
            call()
            times[name].append(clock() - before)
        rounds += 1
    return times


def distribution(seconds: list) -> dict:
    """Put times into the document's form."""
    runs_ms = np.asarray(seconds) * 1e3
    p50, p90, p99 = (float(p) for p in np.percentile(runs_ms, [50, 90, 99]))
    return {
        "runs": len(runs_ms),
        "min_ms": float(runs_ms.min()),
        "mean_ms": float(runs_ms.mean()),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "max_ms": float(runs_ms.max()),
        "runs_ms": [float(value) for value in runs_ms],
    }


def count_instructions(call: Callable[[Any], Any], argument: Any, runs: int) -> dict:
    """Count a call's instructions, on a device whose clock counts one a nanosecond.

    The clock of the process leaves out what others do on the device meanwhile.
    """
    counts: list = []
    for _ in range(runs):
        start = time.process_time_ns()
        call(argument)
        counts.append(time.process_time_ns() - start)
    middle = int(np.percentile(counts, 50))
    return {"runs": runs, "min": min(counts), "p50": middle, "max": max(counts), "counts": counts}


def clock_resolution_ns() -> float:
    """Return the smallest difference seen between two readings of the clock."""
    steps = []
    for _ in range(1000):
        start = now = time.perf_counter_ns()
        while now == start:
            now = time.perf_counter_ns()
        steps.append(now - start)
    return float(min(steps))
