"""The report's figures, as drawings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .document import Latency, Profile, Sustained
from .drawing import TOP, Drawing, dot, frame, line, path, text, x_axis, y_axis
from .judge import trust_of
from .parts import KINDS, part_kind


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
        kind = f"k{KINDS.index(part_kind(part.part))}"
        hint = f"{part.part}: {rate:.3g} GMAC/s"
        shapes.append(dot(x.at(intensity), y.at(rate), kind, hint))
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
