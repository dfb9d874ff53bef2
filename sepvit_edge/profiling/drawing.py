"""Drawings as data: shapes with positions, which the report's template writes as inline SVG.

No markup is made here. The template escapes every text and every attribute, so that a name from a
device or a document stays text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 480, 220
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 30, 46


@dataclass(frozen=True)
class Shape:
    """One element of a drawing.

    Attributes
    ----------
    tag : str
        ``"path"``, ``"circle"`` or ``"text"``.
    attributes : dict
        Its attributes.
    text, hint : str
        Content of a text; what is shown where the pointer rests.
    """

    tag: str
    attributes: dict[str, str]
    text: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Drawing:
    """Shapes on a canvas of `WIDTH` by `HEIGHT`; `label` is for those who cannot see it."""

    label: str
    shapes: list[Shape]
    width: int = field(default=WIDTH)
    height: int = field(default=HEIGHT)


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis between two positions.

    Attributes
    ----------
    low, high : float
        Values at the ends.
    start, end : float
        Positions of the ends.
    log : bool
        Whether it is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value."""
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        value = math.log(value) if self.log else value
        return self.start + (value - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values along the axis with their labels, which have the same decimals.

        Examples
        --------
        >>> [label for _, label in Axis(0, 200, 0, 1).ticks()]
        ['0', '50', '100', '150', '200']
        >>> [label for _, label in Axis(0, 2, 0, 1).ticks()]
        ['0.0', '0.5', '1.0', '1.5', '2.0']
        """
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [10.0**d for d in decades if self.low <= 10.0**d <= self.high]
            return [(value, f"{value:,.{max(-round(math.log10(value)), 0)}f}") for value in values]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4 or 1))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 5)
        decimals = max(-math.floor(math.log10(step) + 1e-9), 0)
        first = math.ceil(self.low / step - 1e-9)
        steps = range(first, math.floor(self.high / step + 1e-9) + 1)
        return [(i * step, f"{i * step:,.{decimals}f}") for i in steps]


def x_axis(low: float, high: float, log: bool = False) -> Axis:
    """Return the horizontal axis of a drawing."""
    return Axis(low, high, LEFT, WIDTH - RIGHT, log)


def y_axis(low: float, high: float, log: bool = False) -> Axis:
    """Return the vertical axis of a drawing."""
    return Axis(low, high, HEIGHT - BOTTOM, TOP, log)


def text(x: float, y: float, words: str, anchor: str = "middle", kind: str = "") -> Shape:
    """Return words at a position."""
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "class": kind}
    return Shape("text", place, words)


def path(kind: str, d: str, hint: str = "") -> Shape:
    """Return a path of one of the template's classes."""
    return Shape("path", {"class": kind, "d": d}, hint=hint)


def line(x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float], kind: str) -> Shape:
    """Return a line through points."""
    points = "L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in zip(xs, ys, strict=True))
    return path(f"line {kind}", f"M{points}")


def dot(x: float, y: float, kind: str, hint: str) -> Shape:
    """Return a dot with a hint."""
    place = {"class": kind, "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "5"}
    return Shape("circle", place, hint=hint)


def frame(
    x: Axis,
    y: Axis,
    x_title: str,
    y_title: str,
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> list[Shape]:
    """Return the axes with their grid, ticks and titles."""
    shapes = []
    for value, label in y.ticks():
        at = y.at(value)
        shapes.append(path("grid", f"M{x.start} {at:.1f}H{x.end}"))
        shapes.append(text(x.start - 6, at + 4, label, "end"))
    for value, label in x.ticks() if x_ticks is None else x_ticks:
        shapes.append(text(x.at(value), y.start + 18, label))
    shapes.append(path("axis", f"M{x.start} {y.start}H{x.end}"))
    shapes.append(text((x.start + x.end) / 2, HEIGHT - 6, x_title, kind="title"))
    shapes.append(text(4, 16, y_title, "start", "title"))
    return shapes
