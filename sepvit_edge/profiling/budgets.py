"""Budgets: what a package must keep to on a device, held against what was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import SepViTError
from .devices import Budgets
from .document import Profile

# Field of `Budgets`: its short name in the text of a budget, its name for people, its unit.
_FIGURES = {
    "p50_ms": ("p50", "p50 latency", "ms"),
    "p90_ms": ("p90", "p90 latency", "ms"),
    "peak_mb": ("peak", "peak memory", "MB"),
    "model_mb": ("size", "model on disk", "MB"),
}
_FIELDS = {short: field for field, (short, _, _) in _FIGURES.items()}


@dataclass(frozen=True)
class BudgetLine:
    """One budget and what was measured.

    Attributes
    ----------
    title : str
        Title of the measurement.
    what : str
        Name of the figure.
    measured : float or None
        Its value; None where it could not be measured.
    limit : float
        The budget.
    unit : str
        ``"ms"`` or ``"MB"``.
    """

    title: str
    what: str
    measured: float | None
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the figure was measured and is at most the limit."""
        return self.measured is not None and self.measured <= self.limit

    @property
    def value(self) -> str:
        """The measured value with its unit, as text."""
        return "not measured" if self.measured is None else f"{self.measured:.2f} {self.unit}"


def hold(title: str, measured: Mapping[str, float | None], budgets: Budgets) -> list[BudgetLine]:
    """Hold the figures of one measurement against budgets.

    Parameters
    ----------
    title : str
        Title of the measurement.
    measured : mapping
        Figures by the names of the fields of `Budgets`.
    budgets : Budgets
        The limits; those that are None are left out.

    Examples
    --------
    >>> from sepvit_edge.profiling.devices import Budgets
    >>> [line.holds for line in hold("a", {"p90_ms": 20.0}, Budgets(p90_ms=20, peak_mb=300))]
    [True, False]
    """
    return [
        BudgetLine(title, what, measured.get(field), limit, unit)
        for field, (_, what, unit) in _FIGURES.items()
        if (limit := getattr(budgets, field)) is not None
    ]


def check_budgets(profiles: Sequence[Profile], budgets: Budgets) -> list[BudgetLine]:
    """Hold measurements against budgets; an emulated device has a model's size only."""
    lines = []
    for profile in profiles:
        held = Budgets(model_mb=budgets.model_mb) if profile.emulated else budgets
        lines += hold(profile.title, figures_of(profile), held)
    return lines


def figures_of(profile: Profile) -> dict[str, float | None]:
    """Return the figures of a measurement by the names of the fields of `Budgets`."""
    return {
        "p50_ms": profile.latency.p50_ms if profile.latency else None,
        "p90_ms": profile.latency.p90_ms if profile.latency else None,
        "peak_mb": profile.memory.peak_mb if profile.memory else None,
        "model_mb": profile.package.model_mb,
    }


def parse_budget(text: str) -> Budgets:
    """Read a budget; ``<`` and ``<=`` both mean "at most".

    Raises
    ------
    SepViTError
        If a piece is not understood.

    Examples
    --------
    >>> parse_budget("p90<20ms, size<10MB")
    Budgets(p50_ms=None, p90_ms=20.0, peak_mb=None, model_mb=10.0)
    """
    limits: dict[str, float] = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(\w+)\s*<=?\s*(\d+(?:\.\d+)?)\s*(ms|MB)?", piece)
        field = _FIELDS.get(match[1]) if match else None
        if match is None or field is None or match[3] not in (None, _FIGURES[field][2]):
            known = ", ".join(f"{short}<...{unit}" for short, _, unit in _FIGURES.values())
            raise SepViTError(f"the budget {piece!r} is not understood; possible are {known}")
        limits[field] = float(match[2])
        if limits[field] <= 0:
            raise SepViTError(f"the budget {piece!r} allows nothing; state a number above 0")
    return Budgets(**limits)


def tightest(first: Budgets, second: Budgets) -> Budgets:
    """Return the lower of two limits for each figure.

    Examples
    --------
    >>> tightest(Budgets(p90_ms=20), Budgets(p90_ms=30, model_mb=9))
    Budgets(p50_ms=None, p90_ms=20.0, peak_mb=None, model_mb=9.0)
    """
    limits = {}
    for field in _FIGURES:
        known = [v for b in (first, second) if (v := getattr(b, field)) is not None]
        limits[field] = min(known, default=None)
    return Budgets(**limits)


def faults(
    profiles: Sequence[Profile], lines: Sequence[BudgetLine], strict: bool = False
) -> list[str]:
    """Name the measurements that are incomplete and the budgets that are broken.

    `strict`: also the measurements that are not trustworthy.
    """
    doubted = [
        f"{profile.title} is not trustworthy, because {profile.trust.because}"
        for profile in profiles
        if strict and profile.trust is not None and not profile.trust.trustworthy
    ]
    incomplete = [f"{profile.incomplete_reason}" for profile in profiles if not profile.complete]
    return [*incomplete, *doubted] + [
        f"{line.title}: {line.what} {line.value} breaks the budget of {line.limit:g} {line.unit}"
        for line in lines
        if not line.holds
    ]
