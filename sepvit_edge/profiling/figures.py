"""The report's figures, as drawings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..pipeline.taps import TapDistance
from .document import Latency, Profile, Sustained
from .drawing import HEIGHT, TOP, Axis, Drawing, dot, frame, line, path, text, x_axis, y_axis
from .judge import trust_of
from .parts import KINDS, STAGES, part_colour, part_kind, part_scale, stage_of


def histogram(latency: Latency) -> Drawing:
    """Draw the distribution of all runs; the last bar holds everything beyond."""
    runs = np.asarray(latency.runs_ms)
    low = latency.min_ms
    high = max(latency.p99_ms + (latency.p99_ms - low) * 0.15, low * 1.01 + 1e-6)
    counts, edges = np.histogram(np.minimum(runs, high), bins=40, range=(low, high))
    x, y = x_axis(low, high), y_axis(0, float(counts.max()) * 1.1)
    shapes = frame(x, y, f"ms (the last bar: {high:.3g} and more)", "runs")
    for count, a, b in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            left, right = x.at(a) + 0.5, x.at(b) - 0.5
            shapes.append(
                path("bar", f"M{left:.1f} {y.start}V{y.at(count):.1f}H{right:.1f}V{y.start}Z")
            )
    for row, name in enumerate(("p50", "p90", "p99")):
        at = x.at(getattr(latency, f"{name}_ms"))
        height = TOP + 18 * row
        shapes.append(path("mark", f"M{at:.1f} {y.start}V{height}"))
        anchor = "end" if at > (x.start + x.end) / 2 else "start"
        shapes.append(text(at + (-4 if anchor == "end" else 4), height + 9, name, anchor, "title"))
    return Drawing("Histogram of latency", shapes)


def sustained_curve(sustained: Sustained) -> Drawing:
    """Draw latency over time, with temperature and clock on their own axes where known."""
    points = sustained.points
    times = [p.time_s for p in points]
    x = x_axis(0, max(times))
    y = y_axis(0, max(p.p90_ms for p in points) * 1.1)
    shapes = frame(x, y, "seconds", "ms")
    shapes.append(line(x, y, times, [p.p90_ms for p in points], "p90"))
    shapes.append(line(x, y, times, [p.p50_ms for p in points], "p50"))
    for name, unit, kind in (("temperature_c", "°C", "heat"), ("frequency_mhz", "MHz", "clock")):
        values = [getattr(p, name) for p in points]
        known = [(t, v) for t, v in zip(times, values, strict=True) if v is not None]
        if len(known) < 2:
            continue
        scale = y_axis(0, max(*(v for _, v in known), 1) * 1.1)
        shapes.append(line(x, scale, [t for t, _ in known], [v for _, v in known], kind))
        last = known[-1][1]
        shapes.append(text(x.end, scale.at(last) - 6, f"{last:.0f} {unit}", "end", kind))
    return Drawing("Latency during the sustained run", shapes)


def roofline(profile: Profile) -> Drawing | None:
    """Draw each part's rate against its intensity, below the machine's roofs."""
    attribution, roofs = profile.attribution, profile.roofs
    if attribution is None or roofs is None:
        return None
    if not roofs.gmacs_per_s or not roofs.bandwidth_gb_per_s:
        return None
    parts = [
        p
        for p in attribution.parts
        if p.macs and p.moved_mb and p.time_us and part_kind(p.part) in KINDS
    ]
    if not parts:
        return None
    intensities = [p.macs / (p.moved_mb * 1e6) for p in parts]
    rates = [p.macs / p.time_us / 1e3 for p in parts]
    knee = roofs.gmacs_per_s / roofs.bandwidth_gb_per_s
    x = x_axis(min(*intensities, knee) / 2, max(*intensities, knee) * 3, log=True)
    y = y_axis(min(*rates, roofs.gmacs_per_s) / 2, max(*rates, roofs.gmacs_per_s) * 2, log=True)
    left = max(x.low, y.low / roofs.bandwidth_gb_per_s)
    corner = f"{x.at(knee):.1f} {y.at(roofs.gmacs_per_s):.1f}"
    start = f"{x.at(left):.1f} {y.at(left * roofs.bandwidth_gb_per_s):.1f}"
    shapes = frame(x, y, "multiply-accumulates a byte", "GMAC/s")
    shapes.append(path("line roof", f"M{start}L{corner}H{x.end}"))
    label = f"{roofs.gmacs_per_s:.3g} GMAC/s"
    shapes.append(text(x.end, y.at(roofs.gmacs_per_s) - 6, label, "end"))
    for part, intensity, rate in zip(parts, intensities, rates, strict=True):
        hint = f"{part.part}: {rate:.3g} GMAC/s"
        shapes.append(dot(x.at(intensity), y.at(rate), part_colour(part.part), hint))
    return Drawing("Roofline", shapes)


def scaling(profiles: Sequence[Profile]) -> list[tuple[str, Drawing]]:
    """Draw the median over the number of threads, for each package that was timed with several."""
    groups: dict[str, dict[int, float]] = {}
    for profile in profiles:
        if profile.latency is not None and profile.runtime.threads is not None:
            name = profile.title.rsplit(", ", 1)[0]
            groups.setdefault(name, {})[profile.runtime.threads] = profile.latency.p50_ms
    found = []
    for name, times in groups.items():
        threads = sorted(times)
        if len(threads) < 2:
            continue
        first = threads[0]
        ideal = [times[first] * first / count for count in threads]
        x, y = x_axis(0, threads[-1] * 1.1), y_axis(0, max(times.values()) * 1.15)
        shapes = frame(x, y, "threads", "p50, ms", [(count, str(count)) for count in threads])
        shapes.append(line(x, y, threads, ideal, "ideal"))
        shapes.append(line(x, y, threads, [times[count] for count in threads], "p50"))
        for count in threads:
            at = x.at(count), y.at(times[count])
            shapes.append(dot(*at, "run", f"{count} threads: {times[count]:.3g} ms"))
            shapes.append(text(at[0], at[1] - 9, f"{times[count]:.3g}", kind="title"))
        found.append((name, Drawing("Median latency over threads", shapes)))
    return found


def series(profiles: Sequence[Profile]) -> Drawing | None:
    """Draw the median over the dates of several results; those in doubt are hollow."""
    known = [(p.date.timestamp(), p) for p in profiles if p.date is not None and p.latency]
    dates = sorted({when for when, _ in known})
    if len(dates) < 2:
        return None
    margin = (dates[-1] - dates[0]) * 0.08
    x = x_axis(dates[0] - margin, dates[-1] + margin)
    y = y_axis(0, max(p.latency.p50_ms for _, p in known if p.latency) * 1.15)
    ends = [
        (when, f"{p.date:%Y-%m-%d}")
        for when, p in known
        if p.date is not None and when in (dates[0], dates[-1])
    ]
    shapes = frame(x, y, "date", "p50, ms", list(dict(ends).items()))
    for when, profile in known:
        assert profile.latency is not None and profile.date is not None
        trust = trust_of(profile)
        kind = "run" if trust is None or trust.trustworthy else "doubt"
        p50 = profile.latency.p50_ms
        package, runtime = profile.package, profile.runtime
        hint = f"{profile.date:%Y-%m-%d %H:%M}: {p50:.3g} ms"
        hint += f", package {package.digest[:8]}, {runtime.name} {runtime.version}"
        shapes.append(dot(x.at(when), y.at(p50), kind, hint))
    return Drawing("Median latency over dates", shapes)


_SECOND = 150  # height of the second curve below the first


def error_and_time(profile: Profile, taps: Sequence[TapDistance], least_db: float) -> Drawing:
    """Draw each part's time above its distance to the reference, in the network's order.

    Parameters
    ----------
    profile : Profile
        Document; without times of parts, the upper half is empty.
    taps : sequence of TapDistance
        Distances of the same package.
    least_db : float
        Distance that the package's precision explains.
    """
    times = part_times_ms(profile)
    low, high = y_axis(0, max(times.values(), default=1.0) * 1.1), _second_axis(taps, least_db)
    x = x_axis(-0.5, len(taps) - 0.5)
    starts = {stage_of(tap.name): i for i, tap in reversed(list(enumerate(taps)))}
    ticks = [(float(i), name) for name, i in starts.items() if name in STAGES[1:-1]]
    shapes = frame(x, low, "", "ms", [])
    for value, label in high.ticks():
        at = high.at(value)
        shapes += [
            path("grid", f"M{x.start} {at:.1f}H{x.end}"),
            text(x.start - 6, at + 4, label, "end"),
        ]
    shapes.append(text(4, low.start + 26, "SQNR, dB", "start", "title"))
    for position, name in ticks:
        at = x.at(position - 0.5)
        shapes.append(path("grid", f"M{at:.1f} {low.end}V{high.start}"))
        shapes.append(text(at + 3, high.start + 18, name, "start"))
    limit = high.at(least_db)
    shapes.append(
        path("line roof", f"M{x.start} {limit:.1f}H{x.end}", "what the precision explains")
    )
    for i, tap in enumerate(taps):
        part = part_behind(tap.name)
        colour = part_colour(part)
        if (time := times.get(part)) is not None:
            left, right, top = x.at(i - 0.4), x.at(i + 0.4), low.at(time)
            bar = f"M{left:.1f} {low.start}V{top:.1f}H{right:.1f}V{low.start}Z"
            shapes.append(path(colour, bar, f"{tap.name}: {time:.3g} ms"))
        hint = f"{tap.name}: {tap.sqnr_db:.1f} dB{', too far' * tap.leaves}"
        shapes.append(dot(x.at(i), high.at(tap.sqnr_db), "doubt" if tap.leaves else colour, hint))
    return Drawing("Time and error by part", shapes, height=HEIGHT + _SECOND)


def _second_axis(taps: Sequence[TapDistance], least_db: float) -> Axis:
    decibels = [tap.sqnr_db for tap in taps]
    margin = 5.0
    low, high = min(*decibels, least_db) - margin, max(*decibels, least_db) + margin
    return Axis(low, high, HEIGHT + _SECOND - 30, HEIGHT - 6)


def part_behind(output: str) -> str:
    """Return the part that gives an output: the head gives those of the model.

    Examples
    --------
    >>> part_behind("stages.0.cpe"), part_behind("logits")
    ('stages.0.cpe', 'head')
    """
    return output if output.startswith(("stages.", "neck.")) else "head"


def part_times_ms(profile: Profile) -> dict[str, float]:
    """Return each part's share of the median latency in ms; empty where it was not measured."""
    if profile.attribution is None:
        return {}
    scale = part_scale(profile) / 1e3
    return {part.part: part.time_us * scale for part in profile.attribution.parts}
