"""Two packages timed in turn on a device, and how much faster one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from ..config.toml import first_fault
from ..errors import SepViTError
from .changes import median_interval
from .document import Conditions, Device, Facts, Interference, ProfiledPackage, RuntimeUsed
from .judge import doubts_about_clock, doubts_about_interference

# One package against itself, loaded twice: their places in memory alone make up to 0.6 %.
SAME = 0.01
_Time = Annotated[float, Field(gt=0)]


class Side(Facts):
    """One of the two packages, and its runtime."""

    package: ProfiledPackage
    runtime: RuntimeUsed

    @property
    def title(self) -> str:
        """``lite 224 openvino int8``."""
        package = self.package
        return f"{package.variant} {package.image_size} {package.target} {package.precision}"


class Pairs(Facts):
    """Times of two packages, taken in turn by the runner.

    Attributes
    ----------
    emulated : bool
        Whether the device was emulated, so that times mean nothing.
    device, before, after, interference
        As in the profile document.
    first, second : Side
        The packages.
    pairs_ms : list of (float, float)
        Times of the first and the second, one after the other.
    """

    emulated: bool
    device: Device
    first: Side
    second: Side
    before: Conditions | None = None
    after: Conditions | None = None
    interference: Interference | None = None
    pairs_ms: list[tuple[_Time, _Time]] = Field(min_length=1)


@dataclass(frozen=True)
class Versus:
    """The second package against the first.

    Attributes
    ----------
    first, second : str
        Names of the packages.
    p50_ms : tuple of float
        Median times.
    ratio : float
        Median of the pairs' ratios, second over first: below 1 the second is faster.
    interval : tuple of float
        Its 95 % confidence interval.
    pairs : int
        Number of pairs.
    threads : int or None
        Threads of the runtimes; None where they chose.
    device : str
        Name of the device.
    doubts : tuple of str
        Reasons for which this is not trustworthy.
    """

    first: str
    second: str
    p50_ms: tuple[float, float]
    ratio: float
    interval: tuple[float, float]
    pairs: int
    threads: int | None
    device: str
    doubts: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Which one is faster, if that is more than chance."""
        low, high = self.interval
        if low <= 1 <= high:
            return "no difference that is more than chance"
        if abs(self.ratio - 1) < SAME:
            return "no difference that is more than loading one of them again makes"
        faster, slower = (self.second, self.first) if high < 1 else (self.first, self.second)
        times = max(self.ratio, 1 / self.ratio)
        return f"{faster} is {times:.2f} times as fast as {slower}"


def read_pairs(document: Any, where: str) -> Pairs:
    """Check pairs that a device sent.

    Raises
    ------
    SepViTError
        If they are not valid.
    """
    try:
        return Pairs.model_validate(document, extra="ignore")
    except ValidationError as error:
        raise SepViTError(f"the pairs from {where} are not valid: {first_fault(error)}") from None


def versus(pairs: Pairs, first: str, second: str) -> Versus:
    """Return the ratio of two packages' times with its interval.

    Each pair has its own ratio, so what slows the device down for a while leaves it as it is; a
    busy device is still doubted, since two programs do not suffer alike.

    Raises
    ------
    SepViTError
        If the device is emulated.
    """
    if pairs.emulated:
        raise SepViTError("times of an emulated device mean nothing; choose a real one")
    times = np.asarray(pairs.pairs_ms)
    ratios = times[:, 1] / times[:, 0]
    doubts = doubts_about_interference(pairs.interference) if pairs.interference else []
    doubts += doubts_about_clock(pairs.before or Conditions(), pairs.after or Conditions())
    return Versus(
        first=first,
        second=second,
        p50_ms=(float(np.median(times[:, 0])), float(np.median(times[:, 1]))),
        ratio=float(np.median(ratios)),
        interval=median_interval(ratios),
        pairs=len(times),
        threads=pairs.first.runtime.threads,
        device=pairs.device.name,
        doubts=tuple(doubt.sentence for doubt in doubts),
    )
