"""Candidates of a search: measured packages, those that no other beats, and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .budgets import hold
from .devices import Budgets


@dataclass(frozen=True)
class Candidate:
    """One package, measured with one number of threads.

    Attributes
    ----------
    title : str
        Name for people.
    package : str
        Folder of the package.
    threads : int or None
        Threads of the runtime; None where the runtime chose.
    top1 : float or None
        Accuracy on the data, 0..1; None without labels.
    agreement : float
        Share of images on which it agrees with the reference, 0..1.
    p50_ms, p90_ms, model_mb, peak_mb : float
        As measured on the device; `peak_mb` is None where it was not measured.
    doubts : tuple of str
        Reasons for which the times are not trustworthy.
    """

    title: str
    package: str
    threads: int | None
    top1: float | None
    agreement: float
    p50_ms: float
    p90_ms: float
    model_mb: float
    peak_mb: float | None
    doubts: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """Top-1, or agreement with the reference where there are no labels."""
        return self.agreement if self.top1 is None else self.top1

    def fits(self, budgets: Budgets) -> bool:
        """Whether every budget holds; one whose figure was not measured does not."""
        return all(line.holds for line in hold(self.title, asdict(self), budgets))


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates that no other beats in both latency and accuracy, fastest first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.p90_ms, -c.accuracy)):
        if not front or candidate.accuracy > front[-1].accuracy:
            front.append(candidate)
    return front


def pick(candidates: Sequence[Candidate], budgets: Budgets) -> Candidate | None:
    """Choose the most accurate that fits; of equals the faster, then the smaller."""
    fitting = [candidate for candidate in candidates if candidate.fits(budgets)]
    return max(fitting, key=lambda c: (c.accuracy, -c.p90_ms, -c.model_mb), default=None)
