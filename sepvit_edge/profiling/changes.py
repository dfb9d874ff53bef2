"""Changes between two measurements, and whether they are more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import SepViTError
from .document import Profile
from .judge import trust_of

_RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """Something that is not the same on the two sides of a comparison.

    Attributes
    ----------
    what : str
        Its name.
    before, after : str
        Values.
    compared : bool
        Whether it may be what the comparison is about (another package, another version); False
        for a setting, with which times cannot be compared.
    """

    what: str
    before: str
    after: str
    compared: bool

    def __str__(self) -> str:
        return f"{self.what} {self.before} before, {self.after} after"


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
    worse : bool
        Worse by more than the tolerance, and more than chance where that can be told.
    differences : tuple of Difference
        What differs between the two sides.
    doubts : tuple of str
        Reasons for which the times of a side are not trustworthy; empty for other figures.
    dates : tuple of str
        Dates of the two sides; ``"no date"`` where a document has none.
    """

    title: str
    what: str
    unit: str
    before: float
    after: float
    interval: tuple[float, float] | None
    worse: bool
    differences: tuple[Difference, ...] = ()
    doubts: tuple[str, ...] = ()
    dates: tuple[str, str] = ("no date", "no date")

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

    @property
    def comparable(self) -> bool:
        """Whether both sides have the same settings."""
        return all(difference.compared for difference in self.differences)

    @property
    def regression(self) -> bool:
        """Whether it is worse, with the same settings and trustworthy times."""
        return self.worse and self.comparable and not self.doubts

    @property
    def verdict(self) -> str:
        """What the change says, in one or two words."""
        if not self.comparable:
            return "other settings"
        if self.doubts:
            return "not trustworthy"
        if self.regression:
            return "REGRESSION"
        return {True: "significant", False: "may be chance", None: "single reading"}[
            self.significant
        ]


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
        ((first, ours),), ((second, theirs),) = (list(side.items()) for side in sides)
        pairs = [(first if first == second else f"{first} -> {second}", ours, theirs)]
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


def differences(before: Profile, after: Profile) -> tuple[Difference, ...]:
    """Name every setting, and every version, that differs between two measurements."""
    sides = [_settings(profile) for profile in (before, after)]
    found = []
    for compared in (False, True):
        first, second = sides[0][compared], sides[1][compared]
        found += [
            Difference(what, first.get(what, "none"), second.get(what, "none"), compared)
            for what in dict.fromkeys([*first, *second])
            if first.get(what) != second.get(what)
        ]
    return tuple(found)


def _settings(profile: Profile) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings of a measurement, and what a comparison may be about."""
    package, runtime, device = profile.package, profile.runtime, profile.device
    method = profile.method
    settings = {
        "device": device.name,
        "processor": device.cpu or device.soc or device.model or "unknown",
        "threads": str(runtime.threads or "default"),
        "cores": ",".join(map(str, method.cores)) if method and method.cores else "not bound",
        "runtime": runtime.name,
        "execution": runtime.execution,
        "target": package.target,
        "precision": package.precision,
        "variant": package.variant,
        "classes": str(package.num_classes),
        "image size": str(package.image_size),
        "batch": str(package.batch),
        "program": profile.producer.name,
    }
    settings |= {k: v for k, v in runtime.settings.items() if "THREADS" not in k.upper()}
    versions = {
        "package": package.digest[:12],
        "runtime's version": runtime.version,
        "program's version": profile.producer.version,
    }
    return settings, versions


def _changes(
    title: str, before: list[Profile], after: list[Profile], tolerance: float
) -> list[Change]:
    differ = differences(before[0], after[0])
    doubts = tuple(
        f"{side}: {trust.because}"
        for side, profiles in (("before", before), ("after", after))
        for profile in profiles
        if (trust := trust_of(profile)) is not None and not trust.trustworthy
    )
    dates = (_date(before[0]), _date(after[0]))
    changes = []
    for percent in (50, 90):
        runs = [[_runs(profile) for profile in side] for side in (before, after)]
        values = [float(np.percentile(np.concatenate(side), percent)) for side in runs]
        interval = _interval(runs[0], runs[1], percent)
        worse = values[1] > values[0] * (1 + tolerance) and interval[0] > 1
        facts = (interval, worse, differ, doubts, dates)
        changes.append(Change(title, f"p{percent}", "ms", values[0], values[1], *facts))
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
            change = Change(title, what, unit, first, second, None, worse, differ, (), dates)
            changes.append(change)
    return changes


def _date(profile: Profile) -> str:
    return "no date" if profile.date is None else f"{profile.date:%Y-%m-%d %H:%M} UTC"


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


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a median, by the same bootstrap."""
    rng = np.random.default_rng(0)
    medians = [np.median(_blocks(values, rng)) for _ in range(_RESAMPLES)]
    low, high = np.percentile(medians, [2.5, 97.5])
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
    """Name int8 measurements whose median is above that of the same model in fp32 beside them.

    Those that are not trustworthy are left out.
    """

    def key(profile: Profile) -> tuple[object, ...]:
        package, runtime = profile.package, profile.runtime
        shape = (package.variant, package.image_size, package.batch, package.target)
        return (*shape, profile.device.name, runtime.threads)

    timed = [
        (p, p.latency.p50_ms)
        for p in profiles
        if p.latency is not None and (trust := trust_of(p)) is not None and trust.trustworthy
    ]
    floats = {key(p): p50 for p, p50 in timed if p.package.precision == "fp32"}
    return [
        f"{p.title}: int8 is slower than fp32 on {p.device.name} "
        f"({p50:.2f} against {floats[key(p)]:.2f} ms); use the fp32 package there"
        for p, p50 in timed
        if p.package.precision == "int8" and p50 > floats.get(key(p), float("inf"))
    ]
