"""Model files timed in turn, in several processes with a random order each.

The order in which models are loaded decides where their weights lie in memory, and the order of
the calls what is in the caches: neither must decide which model is faster. The interleaving and the
judgement are those of `sepvit-edge profile --ab`.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing import get_context
from typing import Any

import numpy as np
from exporters import ModelFile

from sepvit_edge.backends.versions import versions_used
from sepvit_edge.profiling.document import Conditions, Interference
from sepvit_edge.profiling.judge import doubts_about_clock, doubts_about_interference
from sepvit_edge.profiling.runner.conditions import conditions
from sepvit_edge.profiling.runner.document import Missing
from sepvit_edge.profiling.runner.interference import Watch
from sepvit_edge.profiling.runner.latency import time_in_turn
from sepvit_edge.profiling.runner.system import describe_device

# Of each call: seconds on the clock, and seconds that this process had a core.
Times = dict[Any, list[np.ndarray]]


@dataclass(frozen=True)
class Timing:
    """Times of several models.

    Attributes
    ----------
    processes : list of dict
        Times by name, one dict a process.
    doubts : list of str
        Reasons for which they are not trustworthy.
    load : list of float
        Load average of the last minute before each process.
    """

    processes: list[Times]
    doubts: list[str]
    load: list[float]

    def milliseconds(self, name: Any) -> float:
        """Return the median time of a model, on the clock."""
        return statistics.median(t[0] for times in self.processes for t in times[name]) * 1e3

    def ratio(self, name: Any, over: Any) -> dict[str, Any]:
        """Return the time of one model over another's, of rounds and of each process.

        Times are of the processor: those on the clock, whose median is there as well, count what
        other processes do in between.
        """
        rounds = [np.divide(times[name], times[over]) for times in self.processes]
        clock, core = np.concatenate(rounds).T
        low, middle, high = np.percentile(core, [10, 50, 90])
        return {
            "p50": round(float(middle), 3),
            "p10": round(float(low), 3),
            "p90": round(float(high), 3),
            "clock_p50": round(float(np.median(clock)), 3),
            "processes": [round(float(np.median(ratios[:, 1])), 3) for ratios in rounds],
        }

    def facts(self) -> dict[str, Any]:
        """Return how far the times can be trusted, for the data."""
        return {"doubts": self.doubts, "load": self.load}


def time_models(
    models: Mapping[str, ModelFile], runs: int, processes: int, threads: int = 1
) -> Timing:
    """Time models in turn, each process with its own random order."""
    found, doubts, load = [], [], []
    for seed in range(processes):
        times, reading, before, after = in_new_process(_time, dict(models), runs, threads, seed)
        found.append(times)
        facts = Conditions.model_validate(before), Conditions.model_validate(after)
        said = doubts_about_interference(Interference.model_validate(reading)) if reading else []
        doubts += [doubt.sentence for doubt in (*said, *doubts_about_clock(*facts))]
        load.append(round(before["load_average"] or 0, 1))
    return Timing(found, doubts, load)


def in_new_process(function: Any, *arguments: Any) -> Any:
    """Run a function in a process of its own, which starts from nothing."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _time(models: dict[str, ModelFile], runs: int, threads: int, seed: int) -> tuple[Any, ...]:
    import torch

    torch.set_num_threads(threads)
    names = list(models)
    rng = random.Random(seed)
    rng.shuffle(names)
    calls = {name: models[name].call(threads) for name in names}
    rng.shuffle(names)
    before, watch = conditions(), Watch()
    times = time_in_turn({name: calls[name] for name in names}, runs, clock=_clocks)
    return times, watch.reading(), before, conditions()


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def circumstances(command: Sequence[str], packages: Sequence[str]) -> dict[str, Any]:
    """Return command, date, machine and versions, for the data."""
    device = describe_device("local", Missing())
    kept = ("cpu", "architecture", "logical_cores", "cpu_features", "memory_mb", "virtualized")
    return {
        "command": " ".join(command),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {name: device[name] for name in kept},
        "versions": versions_used(packages),
    }
