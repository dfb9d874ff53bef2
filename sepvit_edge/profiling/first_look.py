"""A first look at latency, in the exporting process; `python -m sepvit_edge.profile` measures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..machine import usable_cores
from ..package.session import PackageSession
from .document import Doubt, Interference
from .judge import doubts_about_interference, doubts_about_runs
from .runner.interference import Watch
from .runner.latency import time_in_turn

if TYPE_CHECKING:
    from ..model.create import ReferenceModel
    from ..package.folder import Package

_WARM_UP, _RUNS, _PAIRS = 5, 50, 30
_SECONDS = 0.3  # at least: what other processes do in less is not told exactly


@dataclass(frozen=True)
class FirstLook:
    """Time of one call.

    Attributes
    ----------
    p50_ms : float
        Median in milliseconds.
    runs : int
        Number of timed calls.
    threads : int
        Threads of the runtime.
    over_fp32 : Speedup or None
        Speed of an int8 package over the same model in fp32 on the same runtime.
    doubts : tuple of str
        Reasons for which the time is not trustworthy.
    """

    p50_ms: float
    runs: int
    threads: int
    over_fp32: Speedup | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speedup:
    """Speed of one package over another, timed in turn.

    Attributes
    ----------
    ratio : float
        Median of the pairs' ratios; below 1 it is slower.
    p10, p90 : float
        Percentiles of the same ratios.
    """

    ratio: float
    p10: float
    p90: float


def first_look(
    model: ReferenceModel, package: Package, step: Callable[[str], None] = lambda _: None
) -> FirstLook | None:
    """Time a new package, and its fp32 twin beside it if it is int8.

    Parameters
    ----------
    model : SepViT or DenseModel
        The reference that the package was made from.
    package : Package
        The package.
    step : callable
        Called with the name of each step, for a progress display.

    Returns
    -------
    FirstLook or None
        None if its runtime does not run on this machine, or the time of an image depends on what is
        in it: on the number of regions that further graphs look at.
    """
    from ..pipeline.twins import float_twin

    if package.manifest.verification != "run" or package.manifest.graphs:
        return None
    step("timing it")
    threads = len(usable_cores())
    session = PackageSession(package, threads)
    latency = measure_latency(session, threads)
    if package.manifest.precision == "int8":
        step("timing the same model in fp32 beside it")
        with float_twin(model, package) as other:
            speedup = measure_speedup(session, PackageSession(other, threads))
        latency = replace(latency, over_fp32=speedup)
    return latency


def measure_latency(session: PackageSession, threads: int) -> FirstLook:
    """Time a loaded package on one batch of its golden pixels.

    Parameters
    ----------
    session : PackageSession
        A package that was opened with `threads`.
    threads : int
        Number of threads, for the result.
    """
    pixels = _pixels(session)
    for _ in range(_WARM_UP):
        session.run_pixels(pixels)
    times: list[float] = []
    watch = Watch()
    began = time.perf_counter()
    while len(times) < _RUNS or time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        session.run_pixels(pixels)
        times.append((time.perf_counter() - start) * 1e3)
    return FirstLook(
        p50_ms=round(statistics.median(times), 2),
        runs=len(times),
        threads=threads,
        doubts=tuple(doubt.sentence for doubt in _doubts(times, watch)),
    )


def _doubts(times_ms: list[float], watch: Watch) -> list[Doubt]:
    found = doubts_about_runs(times_ms)
    reading = watch.reading()
    if reading is not None:
        found += doubts_about_interference(Interference.model_validate(reading))
    return found


def measure_speedup(session: PackageSession, over: PackageSession) -> Speedup:
    """Time a loaded package and another one of the same input in turn."""
    pixels = _pixels(session)
    times = time_in_turn(
        {"this": lambda: session.run_pixels(pixels), "other": lambda: over.run_pixels(pixels)},
        _PAIRS,
    )
    ratios = [b / a for a, b in zip(times["this"], times["other"], strict=True)]
    low, *_, high = statistics.quantiles(ratios, n=10)
    return Speedup(*(round(value, 2) for value in (statistics.median(ratios), low, high)))


def _pixels(session: PackageSession) -> np.ndarray:
    batch = session.package.manifest.input.shape[0]
    golden = session.package.golden()["pixels"]
    return np.resize(golden, (batch, *golden.shape[1:]))
