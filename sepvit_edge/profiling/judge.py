"""The judgement on times: a figure from a machine that is busy is not a measurement.

Every threshold lies between what quiet measurements show and what disturbed ones do. The examples
are 36 measurements of about 10 s on a virtual machine with 2 cores (profiles/results), of which 5
were disturbed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .document import SCHEMA_VERSION, Conditions, Doubt, Interference, Profile, Trust

# A desktop at rest uses 1 to 3 % of its cores. From a tenth on, a core is taken from the runs, or
# shares its caches and its clock, often enough to move the median.
OTHERS_SHARE = 0.1
# A hypervisor takes up to 1 % of a quiet machine; more lengthens the mean by the same share.
STOLEN_SHARE = 0.03
# Of processes, where it is not known what they used: our own measurement just before leaves one
# for each core at most.
LOAD_PER_CORE = 1.5
# Ticks of /proc/stat are 10 ms: two of them, over this time, are 0.08 of a process.
SHORTEST_S = 0.25
# The last third over the first: 29 of the examples are within 4.4 %, the disturbed ones at 8 to
# 85 %. A third needs 5 runs, or chance decides.
DRIFT, DRIFT_RUNS = 0.07, 15
# Two groups of times: the slower at least a fifth above; at least a tenth of the runs in each (so
# that the median or the 90th percentile may jump), and 6 (fewer are a quiet machine's outliers);
# and further apart than 5 of their own widths.
# A uniform distribution cut in halves has 2.7 widths, a normal one 2.3; the examples with one
# group have 4.0 at most where the other two conditions hold, those with two have 7.8 to 14.
MODES_RATIO, MODES_SHARE, MODES_RUNS, MODES_WIDTHS = 1.2, 0.1, 6, 5.0
# More threads may be of no use, but a tenth slower means that they waited for a core.
THREADS_RATIO = 1.1
# With all cores at work, the clock is 10 to 15 % below that of one core alone.
CLOCK_RATIO = 0.8
# Android's and iOS's names of states in which the clock is lowered, and a Raspberry Pi's words.
HOT = (
    *("moderate", "severe", "critical", "emergency", "shutdown", "serious"),
    *("under-voltage", "frequency capped", "throttled", "soft temperature limit"),
)


def judged(profiles: Sequence[Profile]) -> list[Profile]:
    """Add the judgement to the documents of one command, which are also held against each other."""
    found = []
    for profile in profiles:
        trust = None
        if profile.latency is not None and not profile.emulated:
            doubts = [*doubts_about(profile), *_slower_threads(profile, profiles)]
            trust = Trust(trustworthy=not doubts, doubts=doubts)
        changes = {"trust": trust, "schema_version": SCHEMA_VERSION}
        found.append(profile.model_copy(update=changes))
    return found


def trust_of(profile: Profile) -> Trust | None:
    """Return the judgement that a document states; one of an older version is judged here."""
    return profile.trust or judged([profile])[0].trust


def doubts_about(profile: Profile) -> list[Doubt]:
    """Return every reason for which one measurement is not trustworthy."""
    if profile.latency is None:
        return []
    before, after = profile.before or Conditions(), profile.after or Conditions()
    found = doubts_about_runs(profile.latency.runs_ms)
    if profile.interference is not None:
        found += doubts_about_interference(profile.interference)
    else:
        found += _load(before, profile.device.logical_cores)
    return [*found, *doubts_about_clock(before, after)]


def doubts_about_interference(reading: Interference) -> list[Doubt]:
    """Judge what other processes and other virtual machines took from the runs.

    Examples
    --------
    >>> quiet = Interference(seconds=10, cores=2, others_s=0.5, stolen_s=0.1)
    >>> doubts_about_interference(quiet)
    []
    >>> busy = Interference(seconds=10, cores=2, others_s=19, stolen_s=2)
    >>> [doubt.sentence for doubt in doubts_about_interference(busy)]
    ['1.9 other processes ran on 2 cores', 'the hypervisor took 10 % of the time']
    """
    found: list[Doubt] = []
    if reading.seconds < SHORTEST_S:
        return found
    cores = f"{reading.cores} core{'s' * (reading.cores > 1)}"
    if reading.others > OTHERS_SHARE * reading.cores:
        found.append(_doubt("others", f"{reading.others:.1f} other processes ran on {cores}"))
    stolen = (reading.stolen_s or 0.0) / (reading.seconds * reading.cores)
    if stolen > STOLEN_SHARE:
        found.append(_doubt("stolen", f"the hypervisor took {100 * stolen:.0f} % of the time"))
    return found


def doubts_about_runs(runs_ms: Sequence[float]) -> list[Doubt]:
    """Judge times alone: whether they drift, and whether they fall into two groups.

    Parameters
    ----------
    runs_ms : sequence of float
        Times of all runs in their order, in milliseconds.
    """
    found = []
    if len(runs_ms) >= DRIFT_RUNS:
        third = len(runs_ms) // 3
        first, last = (float(np.median(part)) for part in (runs_ms[:third], runs_ms[-third:]))
        if abs(last - first) > DRIFT * first:
            how = f"{100 * abs(last / first - 1):.0f} % {'slower' if last > first else 'faster'}"
            found.append(_doubt("drift", f"the last third of the runs was {how} than the first"))
    groups = two_groups(runs_ms) if len(runs_ms) >= 2 * MODES_RUNS else None
    if groups is not None:
        values = f"{groups[0]:.3g} and {groups[1]:.3g} ms"
        found.append(_doubt("modes", f"the times fall into two groups, around {values}"))
    return found


def two_groups(runs_ms: Sequence[float]) -> tuple[float, float] | None:
    """Return the medians of the two groups that times fall into; None if they are one group.

    The groups are those with the least squares of log times within them (Otsu's method). Their
    distance is compared with their widths, both robust: medians, and median deviations as large
    as a normal distribution's standard deviation.
    """
    times = np.sort(np.asarray(runs_ms, dtype=float))
    logs = np.log(np.maximum(times, 1e-9))
    sizes = np.arange(1, len(logs))
    sums = np.cumsum(logs)
    # Least squares within the groups are the greatest between them.
    between = sums[:-1] ** 2 / sizes + (sums[-1] - sums[:-1]) ** 2 / (len(logs) - sizes)
    cut = int(sizes[np.argmax(between)])
    low, high = times[:cut], times[cut:]
    first, second = float(np.median(low)), float(np.median(high))
    least = max(MODES_SHARE * len(times), MODES_RUNS)
    if min(len(low), len(high)) < least or second < MODES_RATIO * first:
        return None
    widths = [1.4826 * float(np.median(np.abs(part - np.median(part)))) for part in (low, high)]
    width = math.hypot(*widths) / math.sqrt(2)
    return (first, second) if second - first > MODES_WIDTHS * width else None


def _slower_threads(profile: Profile, beside: Sequence[Profile]) -> list[Doubt]:
    """Compare with the same measurement on one thread."""
    assert profile.latency is not None
    threads, own = profile.runtime.threads, profile.latency.p50_ms
    alone = [
        other.latency.p50_ms
        for other in beside
        if other.latency is not None and other.runtime.threads == 1 and _alike(profile, other)
    ]
    if threads is None or threads == 1 or not alone or own <= THREADS_RATIO * min(alone):
        return []
    figures = f"{own:.2f} against {min(alone):.2f} ms"
    return [_doubt("threads", f"{threads} threads were slower than 1 ({figures})")]


def _alike(first: Profile, second: Profile) -> bool:
    """Whether two documents differ in threads at most."""
    keys = [
        (p.package, p.device.name, p.runtime.name, p.runtime.execution) for p in (first, second)
    ]
    return keys[0] == keys[1]


def _load(before: Conditions, cores: int | None) -> list[Doubt]:
    load = before.load_average
    if load is None or cores is None or load <= LOAD_PER_CORE * cores:
        return []
    return [_doubt("load", f"the load was {load:.1f} on {cores} cores before the runs")]


def doubts_about_clock(before: Conditions, after: Conditions) -> list[Doubt]:
    """Judge what slows the cores down before or after the runs: heat, the clock, saving power."""
    found = []
    if before.throttle_events is not None and after.throttle_events is not None:
        events = after.throttle_events - before.throttle_events
        if events > 0:
            found.append(_doubt("throttled", f"heat slowed the processor down {events} times"))
    if before.frequencies_mhz and after.frequencies_mhz:
        first, last = max(before.frequencies_mhz), max(after.frequencies_mhz)
        if last < CLOCK_RATIO * first:
            found.append(_doubt("clock", f"the clock fell from {first:.0f} to {last:.0f} MHz"))
    states = {*(after.thermal_state or "").split(", "), *(before.thermal_state or "").split(", ")}
    if hot := [name for name in HOT if name in states]:
        found.append(_doubt("heat", f"the device said: {', '.join(hot)}"))
    if before.low_power_mode or after.low_power_mode:
        found.append(_doubt("power", "the low power mode was on"))
    return found


def _doubt(cause: str, sentence: str) -> Doubt:
    return Doubt(cause=cause, sentence=sentence)
