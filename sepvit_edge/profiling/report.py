"""The report: one self-contained HTML file, for a screen of any width, light or dark.

The template is report.html.jinja; here are its figures and its tables. Jinja escapes everything:
neither this module nor a drawing (`sepvit_edge.profiling.drawing`) makes markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import SepViTError
from ..files import replacing_file
from ..pipeline.parity import LEAST_SQNR_DB
from ..pipeline.taps import TapDistance
from . import figures
from .budgets import BudgetLine
from .connections.interface import missing_library
from .devices import DeviceFile
from .document import Conditions, Profile
from .judge import trust_of
from .parts import (
    KINDS,
    STAGES,
    UNATTRIBUTED,
    by_kind,
    by_stage,
    covered_us,
    part_kind,
    part_scale,
    parts_sentence,
    plain_name,
    roof_us,
    step_shares,
    steps_sentence,
    unattributed_parts,
)

# The template's colours: a part and a stage never share one, but input and head are both.
_COLOURS = {
    **{name: f"k{i}" for i, name in enumerate(KINDS)},
    **{name: f"g{i}" for i, name in enumerate(STAGES) if name not in KINDS},
    UNATTRIBUTED: "rest",
}
_LABELLED = 0.09  # share of a bar's length that has room for its figure


@dataclass(frozen=True)
class Segment:
    """A piece of a bar.

    Attributes
    ----------
    name, colour : str
        What it stands for, and the template's class of its colour.
    time_ms, width : float
        Its time, and its share of the longest bar.
    """

    name: str
    colour: str
    time_ms: float
    width: float

    @property
    def label(self) -> str:
        """The time, where it has room."""
        return number(self.time_ms) if self.width > _LABELLED else ""


def write_report(
    profiles: Sequence[Profile],
    budgets: Sequence[BudgetLine],
    device: DeviceFile,
    command: str,
    path: Path,
    history: Mapping[str, Sequence[Profile]] | None = None,
    by_block: Mapping[str, Sequence[TapDistance]] | None = None,
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
    history : mapping, optional
        Results of other dates, by the title of the measurement.
    by_block : mapping, optional
        Every part's distance to the reference, by the digest of the package.
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
    environment.filters |= {"number": number, "plain_name": plain_name}
    dates = sorted({p.date for p in profiles if p.date is not None})
    models = dict.fromkeys(f"{p.package.variant} {p.package.image_size}" for p in profiles)
    shared = {
        "title": f"{', '.join(models)} on {profiles[0].device.name}",
        "dates": [f"{date:%Y-%m-%d %H:%M} UTC" for date in dates],
        "summary": summary(profiles),
        "profiles": profiles,
        "device": device,
        "budgets": budgets,
        "command": command,
        "bars": [("stage", bars(profiles, STAGES)), ("part", bars(profiles, KINDS))],
        "scaling": figures.scaling(profiles),
        "series": _series(profiles, history or {}),
        "figures": figures,
        "gains": gains,
        "within_unattributed": within_unattributed,
        "parts_sentence": parts_sentence,
        "step_shares": step_shares,
        "steps_sentence": steps_sentence,
        "roof_note": roof_note,
        "trust_of": trust_of,
        "by_block": by_block or {},
        "least_db": LEAST_SQNR_DB,
        "environment_rows": environment_rows,
    }
    page = environment.get_template("report.html.jinja").render(**shared)
    with replacing_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with `digits` significant digits; a dash for None."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{decimals}f}"


def summary(profiles: Sequence[Profile]) -> str:
    """Say which measurement is the fastest, and how far the times can be trusted."""
    timed = [(p.latency.p50_ms, p) for p in profiles if p.latency is not None and not p.emulated]
    if not timed:
        return "Nothing was timed."
    doubted = [p for _, p in timed if (trust := trust_of(p)) is not None and not trust.trustworthy]
    p50, fastest = min(timed, key=lambda pair: pair[0])
    what = "Fastest" if len(timed) > 1 else "Measured"
    sentence = f"{what}: {fastest.title}, with a median of {number(p50)} ms."
    if not doubted:
        return f"{sentence} Nothing was seen that makes the times doubtful."
    if len(doubted) == len(timed):
        return f"{sentence} NOT TRUSTWORTHY: the reasons are below."
    count = f"{len(doubted)} of {len(timed)} measurements are not trustworthy"
    return f"{sentence} {count}{', this one too' * any(p is fastest for p in doubted)}."


def bars(profiles: Sequence[Profile], order: Sequence[str]) -> list[tuple[str, list[Segment]]]:
    """Return a bar for each measurement, cut by stage or by part, as long as its median."""
    found = []
    for profile in profiles:
        if profile.attribution is not None:
            sums = (by_stage if order is STAGES else by_kind)(profile.attribution)
            scale = part_scale(profile) / 1e3
            rest = covered_us(profile.attribution) - sum(sums.values())
            times = {name: time * scale for name, time in sums.items()}
            found.append((profile.title, times | {UNATTRIBUTED: rest * scale}))
    longest = max((sum(times.values()) for _, times in found), default=0.0) or 1.0
    return [
        (title, [Segment(name, _COLOURS[name], ms, ms / longest) for name, ms in times.items()])
        for title, times in found
    ]


def _series(
    profiles: Sequence[Profile], history: Mapping[str, Sequence[Profile]]
) -> list[tuple[str, figures.Drawing]]:
    found = []
    for title in dict.fromkeys(profile.title for profile in profiles):
        ours = [profile for profile in profiles if profile.title == title]
        dates = {profile.date for profile in ours}
        others = [profile for profile in history.get(title, ()) if profile.date not in dates]
        if (drawing := figures.series([*others, *ours])) is not None:
            found.append((title, drawing))
    return found


def gains(profile: Profile) -> list[tuple[str, float, float, float | None, float | None]]:
    """Return kind of part, ms of the median, share, ms at the roofs, and share achieved of them.

    The longest comes first.
    """
    attribution = profile.attribution
    if attribution is None:
        return []
    scale = part_scale(profile) / 1e3
    roofs: dict[str, float] | None = {}
    for part in attribution.parts:
        least = roof_us(part, profile.roofs)
        if least is None or roofs is None:
            roofs = None
            break
        roofs[part_kind(part.part)] = roofs.get(part_kind(part.part), 0.0) + least
    rows = [
        (
            kind,
            time * scale,
            time / covered_us(attribution),
            roofs[kind] / 1e3 if roofs else None,
            roofs[kind] / time if roofs and time else None,
        )
        for kind, time in by_kind(attribution).items()
    ]
    return sorted(rows, key=lambda row: -row[1])


def within_unattributed(profile: Profile) -> list[tuple[str, float]]:
    """Return what is known of the time that belongs to no part, as shares of the median."""
    attribution = profile.attribution
    if attribution is None:
        return []
    covered = covered_us(attribution)
    return [(what, time / covered) for what, time in unattributed_parts(attribution).items()]


def roof_note(profile: Profile) -> str:
    """Say why a part may lie above the roof: its products are of another precision."""
    method = profile.roofs.gmacs_method if profile.roofs else None
    precision = profile.package.precision
    if not method or precision in method:
        return ""
    return f"The roof's products are not in {precision}, so parts in {precision} may lie above it."


def environment_rows(profile: Profile) -> list[tuple[str, str]]:
    """Return what describes the measurement: package, runtime, device, method and conditions."""
    facts, runtime, method = profile.device, profile.runtime, profile.method
    reading = profile.interference
    rows = [
        ("date", f"{profile.date:%Y-%m-%d %H:%M:%S} UTC" if profile.date else None),
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
        ("measured by", f"{profile.producer.name}, version {profile.producer.version}"),
    ]
    if method is not None:
        stable = "stable" if method.warmup_stable else "not stable at its limit"
        rows.append(("warm-up", f"{method.warmup_runs} runs, {stable}"))
        resolution = f", steps of {number(method.clock_resolution_ns)} ns"
        rows.append(("clock", method.clock + resolution * bool(method.clock_resolution_ns)))
        if method.cores:
            rows.append(("bound to cores", ", ".join(map(str, method.cores))))
    if reading is not None:
        others = f"{number(reading.others, 2)} on {reading.cores} cores"
        rows.append(("other processes", others))
    for name, state in (("before", profile.before), ("after", profile.after)):
        if state is not None:
            rows.append((name, _state_text(state)))
    return [(name, text) for name, text in rows if text]


def _state_text(state: Conditions) -> str:
    told = [f"load {state.load_average:.2f}" if state.load_average is not None else ""]
    if state.frequencies_mhz:
        told.append(f"{np.mean(state.frequencies_mhz):.0f} MHz")
    if state.temperatures_c:
        told.append(f"{max(state.temperatures_c.values()):.0f} °C")
    if state.throttle_events is not None:
        told.append(f"{state.throttle_events} throttle events")
    told += [text for text in (state.thermal_state, *(state.governors or [])) if text]
    return ", ".join(text for text in told if text)
