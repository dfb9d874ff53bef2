"""The report: one self-contained HTML file, for a screen of any width, light or dark.

The template is report.html.jinja; here are the figures and the drawings, as inline SVG whose
colours are the page's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import SepViTError
from .budgets import BudgetLine
from .connections.interface import missing_library
from .devices import DeviceFile
from .document import Attribution, Latency, Profile, Sustained
from .parts import KINDS, STAGES, by_kind, by_stage, part_kind, roof_us

WIDTH, HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 54, 14, 40


def write_report(
    profiles: Sequence[Profile],
    budgets: Sequence[BudgetLine],
    device: DeviceFile,
    command: str,
    path: Path,
) -> None:
    """Write the report of some measurements on one device.

    Parameters
    ----------
    profiles : sequence of Profile
        At least one.
    budgets : sequence of BudgetLine
        Lines from `sepvit_edge.profiling.budgets.check_budgets`.
    device : DeviceFile
        The device's file in profiles/.
    command : str
        Command that repeats the measurement.
    path : Path
        File to write.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError:
        raise missing_library("jinja2") from None
    if not profiles:
        raise SepViTError("there is nothing to report")
    environment = Environment(
        loader=PackageLoader("sepvit_edge.profiling", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    attributed = [p for p in profiles if p.attribution]
    shared = {
        "profiles": profiles,
        "device": device,
        "budgets": budgets,
        "command": command,
        "histogram": histogram,
        "sustained": sustained_curve,
        "roofline": roofline,
        "gains": gains,
        "environment_rows": environment_rows,
        "bars": [
            ("by stage", stacked_bars(attributed, by_stage, STAGES), _legend(STAGES)),
            ("by part", stacked_bars(attributed, by_kind, KINDS), _legend(KINDS)),
        ],
    }
    page = environment.get_template("report.html.jinja").render(**shared)
    path.write_text(page, encoding="utf-8")


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with `digits` significant digits; a dash for None."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{decimals}f}"


# --- drawing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis between two pixels.

    Attributes
    ----------
    low, high : float
        Values at the ends.
    start, end : float
        Pixels at the ends.
    log : bool
        Whether it is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        value = math.log(value) if self.log else value
        return self.start + (value - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values along the axis."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [10.0**d for d in decades if self.low <= 10.0**d <= self.high]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4 or 1))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 5)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _x_axis(low: float, high: float, log: bool = False) -> Axis:
    return Axis(low, high, _LEFT, WIDTH - _RIGHT, log)


def _y_axis(low: float, high: float, log: bool = False) -> Axis:
    return Axis(low, high, HEIGHT - _BOTTOM, _TOP, log)


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{text}</text>'


def _frame(x: Axis, y: Axis, x_title: str, y_title: str) -> str:
    lines = []
    for tick in y.ticks():
        at = y.at(tick)
        lines.append(f'<path class="grid" d="M{x.start} {at:.1f}H{x.end}"/>')
        lines.append(_text(x.start - 6, at + 4, number(tick), "end"))
    for tick in x.ticks():
        lines.append(_text(x.at(tick), y.start + 16, number(tick)))
    lines.append(f'<path class="axis" d="M{x.start} {y.start}H{x.end}"/>')
    lines.append(_text((x.start + x.end) / 2, HEIGHT - 6, x_title, kind="title"))
    lines.append(_text(x.start - 6, _TOP - 3, y_title, "start", "title"))
    return "".join(lines)


def _svg(content: str, label: str, height: float = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{label}">{content}</svg>'
    )


def histogram(latency: Latency) -> str:
    """Draw the distribution of all runs; the last bar holds everything beyond."""
    runs = np.asarray(latency.runs_ms)
    low = latency.min_ms
    high = max(latency.p99_ms + (latency.p99_ms - low) * 0.15, low * 1.01 + 1e-6)
    counts, edges = np.histogram(np.minimum(runs, high), bins=40, range=(low, high))
    x, y = _x_axis(low, high), _y_axis(0, float(counts.max()) * 1.1)
    bars = [
        f'<path class="bar" d="M{x.at(a) + 0.5:.1f} {y.start}V{y.at(c):.1f}'
        f'H{x.at(b) - 0.5:.1f}V{y.start}Z"/>'
        for c, a, b in zip(counts.tolist(), edges[:-1], edges[1:], strict=True)
        if c
    ]
    marks = []
    for row, name in enumerate(("p50", "p90", "p99")):
        at = x.at(getattr(latency, f"{name}_ms"))
        marks.append(f'<path class="mark" d="M{at:.1f} {y.start}V{_TOP + 14 * row + 6}"/>')
        marks.append(_text(at + 3, _TOP + 14 * row + 12, name, "start"))
    frame = _frame(x, y, f"ms (the last bar: {number(high)} and more)", "runs")
    return _svg(frame + "".join(bars + marks), "Histogram of latency")


def sustained_curve(sustained: Sustained) -> str:
    """Draw latency over time, with temperature and frequency on their own axes where known."""
    points = sustained.points
    times = [p.time_s for p in points]
    x = _x_axis(0, max(times))
    top = max(p.p90_ms for p in points) * 1.1
    y = _y_axis(0, top)
    drawn = [_frame(x, y, "seconds", "ms")]
    drawn.append(_line(x, y, times, [p.p90_ms for p in points], "p90"))
    drawn.append(_line(x, y, times, [p.p50_ms for p in points], "p50"))
    for name, unit in (("temperature_c", "C"), ("frequency_mhz", "MHz")):
        values = [getattr(p, name) for p in points]
        known = [(t, v) for t, v in zip(times, values, strict=True) if v is not None]
        if len(known) < 2:
            continue
        scale = _y_axis(0, max(v for _, v in known) * 1.1)
        drawn.append(_line(x, scale, [t for t, _ in known], [v for _, v in known], name))
        last = known[-1][1]
        drawn.append(_text(x.end, scale.at(last) - 6, f"{last:.0f} {unit}", "end", name))
    return _svg("".join(drawn), "Latency during the sustained run")


def _line(x: Axis, y: Axis, xs: list[float], ys: list[float], kind: str) -> str:
    path = "L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in zip(xs, ys, strict=True))
    return f'<path class="line {kind}" d="M{path}"/>'


def _legend(names: Sequence[str]) -> list[tuple[int, str]]:
    return [*enumerate(names), (len(names), "unattributed")]


def stacked_bars(
    profiles: Sequence[Profile],
    sums: Callable[[Attribution], dict[str, float]],
    order: Sequence[str],
) -> str:
    """Draw a bar for each measurement, cut by stage or by part."""
    if not profiles:
        return ""
    longest = max(_length(p.attribution) for p in profiles if p.attribution) / 1e3
    x = Axis(0, longest, 4, WIDTH - 4)
    drawn, top = [], 0
    for profile in profiles:
        assert profile.attribution is not None
        sizes = sums(profile.attribution)
        shares = [(order.index(name), name, time) for name, time in sizes.items()]
        rest = max(profile.attribution.unattributed_us, 0.0)
        shares.append((len(order), "unattributed", rest))
        drawn.append(_text(4, top + 14, profile.title, "start", "title"))
        start = 0.0
        for index, name, time in shares:
            left, right = x.at(start), x.at(start + time / 1e3)
            title = f"<title>{name}: {number(time / 1e3)} ms</title>"
            drawn.append(
                f'<rect class="s{index}" x="{left:.1f}" y="{top + 20}" rx="2" '
                f'width="{max(right - left - 1, 0.3):.1f}" height="24">{title}</rect>'
            )
            if right - left > 46:
                middle = (left + right) / 2
                drawn.append(_text(middle, top + 36, number(time / 1e3), kind="in"))
            start += time / 1e3
        top += 58
    return _svg("".join(drawn), "Time by part, in milliseconds", top)


def _length(attribution: Attribution | None) -> float:
    assert attribution is not None
    return max(attribution.whole_us, sum(part.time_us for part in attribution.parts))


def roofline(profile: Profile) -> str:
    """Draw each part's rate against its intensity, below the machine's roofs."""
    attribution, roofs = profile.attribution, profile.roofs
    if attribution is None or roofs is None or not roofs.gmacs_per_s:
        return ""
    if not roofs.bandwidth_gb_per_s:
        return ""
    parts = [p for p in attribution.parts if p.macs and p.moved_mb and p.time_us]
    if not parts:
        return ""
    intensities = [p.macs / (p.moved_mb * 1e6) for p in parts]
    rates = [p.macs / p.time_us / 1e3 for p in parts]
    knee = roofs.gmacs_per_s / roofs.bandwidth_gb_per_s
    x = _x_axis(min(*intensities, knee) / 2, max(*intensities, knee) * 3, log=True)
    y = _y_axis(min(rates) / 2, max(*rates, roofs.gmacs_per_s) * 2, log=True)
    corner = (x.at(knee), y.at(roofs.gmacs_per_s))
    left = max(x.low, y.low / roofs.bandwidth_gb_per_s)
    roof = (
        f'<path class="line roof" d="M{x.at(left):.1f} '
        f"{y.at(left * roofs.bandwidth_gb_per_s):.1f}L{corner[0]:.1f} {corner[1]:.1f}"
        f'H{x.end}"/>'
    )
    dots = [
        f'<circle class="s{KINDS.index(part_kind(p.part))}" cx="{x.at(i):.1f}" cy="{y.at(r):.1f}" '
        f'r="5"><title>{p.part}: {number(r)} GMAC/s</title></circle>'
        for p, i, r in zip(parts, intensities, rates, strict=True)
    ]
    label = f"{number(roofs.gmacs_per_s)} GMAC/s"
    labels = _text(x.end, corner[1] - 6, label, "end")
    frame = _frame(x, y, "multiply-accumulates a byte", "GMAC/s")
    return _svg(frame + roof + labels + "".join(dots), "Roofline")


def gains(profile: Profile) -> list[tuple[str, float, float, float | None]]:
    """Return kind of part, ms, share, and ms at the roofs; the longest first."""
    attribution = profile.attribution
    if attribution is None:
        return []
    times = by_kind(attribution)
    roofs: dict[str, float] | None = {}
    for part in attribution.parts:
        least = roof_us(part, profile.roofs)
        if least is None or roofs is None:
            roofs = None
            break
        roofs[part_kind(part.part)] = roofs.get(part_kind(part.part), 0.0) + least
    rows = [
        (kind, time / 1e3, time / attribution.whole_us, roofs[kind] / 1e3 if roofs else None)
        for kind, time in times.items()
    ]
    return sorted(rows, key=lambda row: -row[1])


def environment_rows(profile: Profile) -> list[tuple[str, str]]:
    """Return what describes the measurement: package, runtime, device, method and conditions."""
    facts, runtime, method = profile.device, profile.runtime, profile.method
    rows = [
        ("package", f"{profile.package.digest[:16]}, {number(profile.package.macs / 1e9)} GMAC"),
        ("runtime", f"{runtime.name} {runtime.version} on {runtime.execution}"),
        ("settings", ", ".join(f"{k}={v}" for k, v in runtime.settings.items()) or "none"),
        ("model", facts.model),
        ("CPU", facts.cpu or facts.soc),
        ("features", ", ".join(facts.cpu_features or [])),
        ("cores", str(facts.logical_cores) if facts.logical_cores else None),
        ("system", " ".join(x for x in (facts.os, facts.os_version, facts.architecture) if x)),
        ("virtual machine", {True: "yes", False: "no", None: None}[facts.virtualized]),
        ("memory", f"{number(facts.memory_mb)} MB" if facts.memory_mb else None),
        ("Python", facts.python_version),
        ("written by", f"{profile.producer.name} {profile.producer.version}"),
    ]
    if method is not None:
        stable = "stable" if method.warmup_stable else "not stable at its limit"
        rows.append(("warm-up", f"{method.warmup_runs} runs, {stable}"))
        resolution = f", steps of {number(method.clock_resolution_ns)} ns"
        rows.append(("clock", method.clock + resolution * bool(method.clock_resolution_ns)))
        if method.cores:
            rows.append(("bound to cores", ", ".join(map(str, method.cores))))
    for name, state in (("before", profile.before), ("after", profile.after)):
        if state is None:
            continue
        told = [f"load {state.load_average:.2f}" if state.load_average is not None else ""]
        if state.frequencies_mhz:
            told.append(f"{np.mean(state.frequencies_mhz):.0f} MHz")
        if state.temperatures_c:
            told.append(f"{max(state.temperatures_c.values()):.0f} C")
        if state.throttle_events is not None:
            told.append(f"{state.throttle_events} throttle events")
        told += [text for text in (state.thermal_state, *(state.governors or [])) if text]
        rows.append((name, ", ".join(t for t in told if t)))
    return [(name, text) for name, text in rows if text]
