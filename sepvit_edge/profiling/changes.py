"""Changes between two measurements, and whether they are more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import SepViTError
from .document import Profile

_RESAMPLES = 2000


@dataclass(frozen=True)
class Change:
    """One figure before and after.

    Attributes
    ----------
    title, what, unit : str
        Title of the measurement, name of the figure, and its unit.
    before, after : float
        Values.
    interval : tuple of float or None
        95 % confidence interval of after / before; None for figures of a single reading.
    regression : bool
        Worse by more than the tolerance, and more than chance where that can be told.
    """

    title: str
    what: str
    unit: str
    before: float
    after: float
    interval: tuple[float, float] | None
    regression: bool

    @property
    def ratio(self) -> float:
        """Value after over value before."""
        return self.after / self.before if self.before else float("inf")

    @property
    def significant(self) -> bool | None:
        """Whether 1 is outside the interval; None where there is none."""
        if self.interval is None:
            return None
        return not self.interval[0] <= 1 <= self.interval[1]


def compare_profiles(
    before: Sequence[Profile], after: Sequence[Profile], tolerance: float
) -> list[Change]:
    """Compare measurements of the same thing; one with one is compared in any case.

    Latency: a bootstrap of the ratio of medians (and of 90th percentiles). Neighbouring runs are
    alike, so blocks of them are drawn; where a side has several documents of one thing
    (``--repeat``), these are drawn first, since processes differ more than runs.

    Parameters
    ----------
    before, after : sequence of Profile
        Complete documents.
    tolerance : float
        Share by which a figure may become worse, 0.05 for 5 %.

    Raises
    ------
    SepViTError
        If the two have nothing in common, or one is emulated or incomplete.
    """
    sides = [_grouped(before), _grouped(after)]
    if len(sides[0]) == len(sides[1]) == 1:
        ((title, first),), ((_, second),) = (list(side.items()) for side in sides)
        pairs = [(title, first, second)]
    else:
        pairs = [(t, sides[0][t], sides[1][t]) for t in sides[0] if t in sides[1]]
    if not pairs:
        raise SepViTError(
            "the two have nothing in common; "
            f"one has {', '.join(sides[0])}, the other {', '.join(sides[1])}"
        )
    return [change for pair in pairs for change in _changes(*pair, tolerance)]


def _grouped(profiles: Sequence[Profile]) -> dict[str, list[Profile]]:
    groups: dict[str, list[Profile]] = {}
    for profile in profiles:
        if profile.emulated:
            raise SepViTError("emulated times cannot be compared")
        if profile.latency is None or not profile.complete:
            raise SepViTError(f"{profile.title} is incomplete: {profile.incomplete_reason}")
        groups.setdefault(f"{profile.device.name}: {profile.title}", []).append(profile)
    return groups


def _changes(
    title: str, before: list[Profile], after: list[Profile], tolerance: float
) -> list[Change]:
    changes = []
    for percent in (50, 90):
        runs = [[_runs(profile) for profile in side] for side in (before, after)]
        values = [float(np.percentile(np.concatenate(side), percent)) for side in runs]
        interval = _interval(runs[0], runs[1], percent)
        worse = values[1] > values[0] * (1 + tolerance) and interval[0] > 1
        changes.append(Change(title, f"p{percent}", "ms", values[0], values[1], interval, worse))
    singles: list[tuple[str, str, Callable[[Profile], float | None]]] = [
        ("cold start", "ms", lambda p: p.cold_start.total_ms if p.cold_start else None),
        ("peak memory", "MB", lambda p: p.memory.peak_mb if p.memory else None),
        ("model on disk", "MB", lambda p: p.package.model_mb),
    ]
    for what, unit, figure in singles:
        known = [[v for p in side if (v := figure(p)) is not None] for side in (before, after)]
        if known[0] and known[1]:
            first, second = (float(np.median(side)) for side in known)
            # A cold start is too few readings to judge.
            worse = second > first * (1 + tolerance) and what != "cold start"
            changes.append(Change(title, what, unit, first, second, None, worse))
    return changes


def _runs(profile: Profile) -> np.ndarray:
    assert profile.latency is not None
    return np.asarray(profile.latency.runs_ms)


def _interval(
    before: list[np.ndarray], after: list[np.ndarray], percent: float
) -> tuple[float, float]:
    """Return the 95 % interval of a percentile's ratio, by a block bootstrap with a fixed seed."""
    rng = np.random.default_rng(0)
    ratios = [
        np.percentile(_resampled(after, rng), percent)
        / np.percentile(_resampled(before, rng), percent)
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def _resampled(documents: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    drawn = [documents[i] for i in rng.integers(0, len(documents), len(documents))]
    return np.concatenate([_blocks(runs, rng) for runs in drawn])


def _blocks(runs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw blocks of consecutive runs, each about as long as the number of them."""
    length = max(int(len(runs) ** 0.5), 1)
    starts = rng.integers(0, len(runs) - length + 1, -(-len(runs) // length))
    return runs[(starts[:, None] + np.arange(length)).ravel()][: len(runs)]


def slower_than_fp32(profiles: Sequence[Profile]) -> list[str]:
    """Name int8 measurements whose median is above that of the same model in fp32 beside them."""

    def key(profile: Profile) -> tuple[object, ...]:
        package, runtime = profile.package, profile.runtime
        shape = (package.variant, package.image_size, package.batch, package.target)
        return (*shape, profile.device.name, runtime.threads)

    timed = [(p, p.latency.p50_ms) for p in profiles if p.latency is not None and not p.emulated]
    floats = {key(p): p50 for p, p50 in timed if p.package.precision == "fp32"}
    return [
        f"{p.title}: int8 is slower than fp32 on {p.device.name} "
        f"({p50:.2f} against {floats[key(p)]:.2f} ms); use the fp32 package there"
        for p, p50 in timed
        if p.package.precision == "int8" and p50 > floats.get(key(p), float("inf"))
    ]
