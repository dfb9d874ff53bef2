"""What `profile` and `recommend` print: measurements, budgets, changes and candidates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ..profiling.parts import (
    UNATTRIBUTED,
    by_kind,
    covered_us,
    part_scale,
    parts_sentence,
    plain_name,
    step_shares,
    steps_sentence,
    unattributed_parts,
)
from .console import console, print_columns, print_table, warn

if TYPE_CHECKING:
    from ..profiling.budgets import BudgetLine
    from ..profiling.candidates import Candidate
    from ..profiling.changes import Change
    from ..profiling.devices import DeviceFile
    from ..profiling.document import Profile
    from ..profiling.pairs import Versus

_PLOT_WIDTH, _PLOT_HEIGHT = 60, 14


def print_profiles(
    profiles: Sequence[Profile], budgets: Sequence[BudgetLine], device: DeviceFile
) -> None:
    """Print measurements on one device, its budgets and its known traps."""
    from ..profiling.changes import slower_than_fp32

    for profile in profiles:
        print_table(f"{profile.device.name}: {profile.title}", profile_rows(profile))
    if budgets:
        rows = [
            [b.title, b.what, b.value, f"{b.limit:g} {b.unit}", "ok" if b.holds else "broken"]
            for b in budgets
        ]
        print_columns(["budgets", "", "measured", "limit", ""], rows)
    for sentence in slower_than_fp32(profiles):
        console.print(sentence, style="bold")
    for note in device.notes:
        console.print(f"note: {note}", style="dim")


def profile_rows(profile: Profile) -> list[tuple[str, str]]:
    """Return the rows of the table of one measurement."""
    return [
        *_check_rows(profile),
        *_time_rows(profile),
        *_resource_rows(profile),
        *_attribution_rows(profile),
        *_step_rows(profile),
        *_missing_rows(profile),
    ]


def _check_rows(profile: Profile) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if profile.emulated:
        what = "every time below is the emulator's and means nothing"
        if profile.instructions is not None:
            what = "instructions are counted; they are no times"
        rows.append(("EMULATED", what))
    if not profile.complete:
        rows.append(("INCOMPLETE", profile.incomplete_reason or ""))
    if profile.trust is not None and not profile.trust.trustworthy:
        rows.append(("NOT TRUSTWORTHY", f"because {profile.trust.because}"))
    rows.append(("runtime", f"{profile.runtime.name} {profile.runtime.version}"))
    if (golden := profile.golden) is not None:
        distance = "identical" if golden.sqnr_db is None else f"SQNR {golden.sqnr_db:.1f} dB"
        least = f"{golden.images} images, at least {golden.minimum_sqnr_db:.0f} dB expected"
        rows.append(("golden vectors", f"{distance} ({least})"))
    return rows


def _time_rows(profile: Profile) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if (latency := profile.latency) is not None:
        runs = f"{latency.runs} run{'s' * (latency.runs > 1)}"
        rows += [
            ("latency", f"p50 {latency.p50_ms:.2f} ms ({runs})"),
            ("", ""),
            ("p90, p99", f"{latency.p90_ms:.2f}, {latency.p99_ms:.2f} ms"),
            ("mean, max", f"{latency.mean_ms:.2f}, {latency.max_ms:.2f} ms"),
        ]
    if (counted := profile.instructions) is not None:
        spread = f"{counted.min / 1e6:.3f} to {counted.max / 1e6:.3f}"
        runs = f"{counted.runs} run{'s' * (counted.runs > 1)}"
        rows.append(("instructions", f"p50 {counted.p50 / 1e6:.3f} million ({spread}, {runs})"))
    if (reading := profile.interference) is not None:
        others = f"{reading.others:.2f} on {reading.cores} core{'s' * (reading.cores > 1)}"
        rows.append(("other processes", f"{others} while the runs were timed"))
    if (start := profile.cold_start) is not None:
        parts = f"load {start.load_ms:.0f}, first run {start.first_run_ms:.0f}"
        rows.append(("cold start", f"{start.total_ms:.0f} ms ({parts})"))
    if profile.preprocessing is not None:
        rows.append(("preprocessing", f"p50 {profile.preprocessing.p50_ms:.2f} ms"))
    return rows


def _resource_rows(profile: Profile) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if (memory := profile.memory) is not None:
        values = (
            ("peak", memory.peak_mb),
            ("steady", memory.steady_mb),
            ("before", memory.baseline_mb),
        )
        told = [f"{name} {value:.0f} MB" for name, value in values if value is not None]
        rows.append(("resident memory", ", ".join(told)))
        if memory.growth_mb is not None:
            rows.append(("growth", f"{memory.growth_mb:+.1f} MB over {memory.growth_runs} runs"))
    if (energy := profile.energy) is not None:
        rows.append(("energy", f"{energy.per_run_mj:.1f} mJ a run, {energy.mean_w:.1f} W"))
    if profile.sustained is not None and profile.sustained.points:
        first, last = profile.sustained.points[0], profile.sustained.points[-1]
        after = f"p50 {first.p50_ms:.2f} ms at first, {last.p50_ms:.2f} ms at the end"
        rows.append(("sustained", f"{last.time_s:.0f} s: {after}"))
    return rows


def _attribution_rows(profile: Profile) -> list[tuple[str, str]]:
    attribution = profile.attribution
    if attribution is None:
        return []
    scale, covered = part_scale(profile), covered_us(attribution)
    times = by_kind(attribution)
    times[UNATTRIBUTED] = covered - sum(times.values())
    within = {f"  {name}": time for name, time in unattributed_parts(attribution).items()}
    rows = [("", "")]
    for kind, time in (times | within).items():
        share = f"{time / covered:6.1%}"
        rows.append((kind, f"{share}  {time * scale / 1e3:.2f} ms"))
    whole = f"{covered * scale / 1e3:.2f} ms"
    rows.append(
        ("all parts", f"100.0%  {whole}{', the p50 above' * (profile.latency is not None)}")
    )
    return [*rows, ("shares", parts_sentence(profile)), ("obtained by", attribution.obtained)]


def _step_rows(profile: Profile) -> list[tuple[str, str]]:
    if profile.steps is None:
        return []
    rows = [("", "")]
    for step, share in step_shares(profile.steps):
        calls = f", {step.calls} calls" if step.calls != 1 else ""
        where = " on the host" if step.where == "host" else ""
        rows.append((step.name, f"{share:6.1%}  {step.p50_ms:.2f} ms{calls}{where}"))
    return [*rows, ("an image", steps_sentence(profile.steps))]


def _missing_rows(profile: Profile) -> list[tuple[str, str]]:
    if not profile.not_measured:
        return []
    return [
        ("", ""),
        *((f"no {plain_name(item.what)}", item.reason) for item in profile.not_measured),
    ]


def print_changes(changes: Sequence[Change]) -> None:
    """Print what changed from one result to another, and what differs between them."""
    for title, group in groupby(changes, lambda change: change.title):
        rows, first = [], None
        for change in group:
            first = first or change
            interval = "-"
            if change.interval is not None:
                interval = f"{change.interval[0]:.3f}-{change.interval[1]:.3f}"
            figures = [f"{value:.2f} {change.unit}" for value in (change.before, change.after)]
            rows.append([change.what, *figures, f"{change.ratio:.3f}", interval, change.verdict])
        assert first is not None
        console.print(title, style="bold", markup=False, soft_wrap=True)
        console.print(f"before: {first.dates[0]}, after: {first.dates[1]}")
        for difference in first.differences:
            kind = "compared" if difference.compared else "OTHER SETTING"
            console.print(f"{kind}: {difference}", markup=False, soft_wrap=True)
        for doubt in first.doubts:
            console.print(f"NOT TRUSTWORTHY {doubt}", markup=False, soft_wrap=True)
        print_columns(["figure", "before", "after", "ratio", "95 % interval", "verdict"], rows)


def print_versus(found: Versus) -> None:
    """Print how two packages compare that were timed in turn."""
    low, high = found.interval
    threads = f"{found.threads or 'default'} thread{'s' * (found.threads != 1)}"
    rows = [
        ("first", f"p50 {found.p50_ms[0]:.2f} ms  {found.first}"),
        ("second", f"p50 {found.p50_ms[1]:.2f} ms  {found.second}"),
        ("second / first", f"{found.ratio:.3f} (95 % interval {low:.3f} to {high:.3f})"),
        ("verdict", found.verdict),
        ("timed", f"{found.pairs} pairs in turn, {threads}"),
    ]
    if found.doubts:
        rows.insert(0, ("NOT TRUSTWORTHY", f"because {'; '.join(found.doubts)}"))
    print_table(f"{found.device}: two packages", rows)


def print_candidates(
    found: Sequence[Candidate], front: Sequence[Candidate], chosen: Candidate | None
) -> None:
    """Print the candidates of a search, their accuracy over latency, and the choice."""
    rows = []
    for candidate in sorted(found, key=lambda c: c.p90_ms):
        marks = "pick" if candidate is chosen else "front" if candidate in front else ""
        rows.append(
            [
                candidate.title,
                "-" if candidate.top1 is None else f"{candidate.top1:.2%}",
                f"{candidate.agreement:.2%}",
                f"{candidate.p50_ms:.2f}",
                f"{candidate.p90_ms:.2f}",
                f"{candidate.model_mb:.2f}",
                "-" if candidate.peak_mb is None else f"{candidate.peak_mb:.0f}",
                marks,
            ]
        )
    header = ["package", "top-1", "agreement", "p50 ms", "p90 ms", "MB", "peak MB", ""]
    print_columns(header, rows)
    for doubted in (candidate for candidate in found if candidate.doubts):
        warn(f"{doubted.title} is not trustworthy, because {'; '.join(doubted.doubts)}")
    console.print(_plot(found, front, chosen), markup=False)
    if chosen is not None:
        console.print(f"pick: {chosen.package}, {chosen.threads or 'default'} threads")


def _plot(found: Sequence[Candidate], front: Sequence[Candidate], chosen: Candidate | None) -> str:
    """Draw accuracy over latency: ``.`` a candidate, ``o`` on the front, ``@`` the choice."""
    times = [c.p90_ms for c in found]
    marks = [c.accuracy for c in found]
    rows = [[" "] * _PLOT_WIDTH for _ in range(_PLOT_HEIGHT)]
    for candidate in [*found, *front, *([chosen] if chosen else [])]:
        x = _cell(candidate.p90_ms, times, _PLOT_WIDTH)
        y = _PLOT_HEIGHT - 1 - _cell(candidate.accuracy, marks, _PLOT_HEIGHT)
        rows[y][x] = "@" if candidate is chosen else "o" if candidate in front else "."
    lines = ["".join(row).rstrip() for row in rows]
    lines[0] = f"{max(marks):7.2%} |{lines[0]}"
    lines[-1] = f"{min(marks):7.2%} |{lines[-1]}"
    lines[1:-1] = [f"{'':7} |{line}" for line in lines[1:-1]]
    ends = f"{min(times):.1f} ms".ljust(_PLOT_WIDTH - 10) + f"{max(times):.1f} ms".rjust(10)
    return "\n".join([*lines, f"{'':8}+{'-' * _PLOT_WIDTH}", f"{'p90':8} {ends}"])


def _cell(value: float, values: Sequence[float], cells: int) -> int:
    low, high = min(values), max(values)
    return round((value - low) / (high - low) * (cells - 1)) if high > low else 0
