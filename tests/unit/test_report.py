"""The HTML report: what it shows, that it can be read, and that no name becomes markup."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import MINI, REPOSITORY, jittered, profile_with
from pydantic import ValidationError

from sepvit_edge.cli import profile_tables
from sepvit_edge.model.edge.make import edge_model
from sepvit_edge.model.graph import trace
from sepvit_edge.pipeline.taps import TapDistance
from sepvit_edge.profiling import figures, report
from sepvit_edge.profiling.budgets import BudgetLine, check_budgets
from sepvit_edge.profiling.devices import Budgets, DeviceFile, load_device
from sepvit_edge.profiling.document import Profile
from sepvit_edge.profiling.drawing import Axis
from sepvit_edge.profiling.explorer import write_graphs
from sepvit_edge.profiling.parts import KINDS, STAGES, parts_sentence
from sepvit_edge.profiling.report import bars, gains, summary, write_report

PARTS = [
    {"part": "input", "time_us": 100.0, "operations": 1, "macs": 0, "moved_mb": 0.1},
    {"part": "head", "time_us": 900.0, "operations": 1, "macs": 10**7, "moved_mb": 1.0},
    {"part": "stages.2.blocks.4.psa", "time_us": 2000.0, "operations": 2, "macs": 5 * 10**7,
     "moved_mb": 0.1},
]  # fmt: skip
POINT = {"runs": 5, "p50_ms": 3.0, "p90_ms": 4.0, "max_ms": 5.0, "frequency_mhz": 2400.0}
SECTIONS: dict[str, Any] = {
    "sustained": {
        "requested_s": 60.0,
        "points": [POINT | {"time_s": 5.0 * i, "temperature_c": 40.0 + i} for i in range(1, 10)],
    },
    "roofs": {
        "gmacs_per_s": 50.0,
        "gmacs_method": "products, fp32",
        "bandwidth_gb_per_s": 10.0,
        "bandwidth_method": "STREAM",
    },
    "attribution": {
        "method": "counters",
        "whole_us": 4000.0,
        "unattributed_us": 1000.0,
        "parts": PARTS,
    },
}


class Page(HTMLParser):
    """What a browser would see: the tags, their attributes, and the text."""

    void = frozenset({"meta", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def dated(day: int, p50: float, **changes: Any) -> Profile:
    profile = profile_with(np.full(30, p50), **changes)
    date = datetime(2026, 11, day, 15, tzinfo=timezone.utc)
    return profile.model_copy(update={"date": date})


def page(path: Path, profiles: list[Profile], **more: Any) -> Page:
    lines = check_budgets(profiles, Budgets(p90_ms=1, model_mb=100))
    device = load_device("raspberry-pi-5")[1]
    write_report(profiles, lines, device, "python -m x", path / "r.html", **more)
    return Page(path / "r.html")


def test_it_shows_what_was_measured(tmp_path: Path) -> None:
    busy = {"interference": {"seconds": 10, "cores": 2, "others_s": 19}}
    one = dated(30, 8, runtime__threads=1, **SECTIONS)
    two = dated(30, 51, runtime__threads=2, **busy)
    history = {one.title: [dated(13, 6, runtime__threads=1), one]}
    found = page(tmp_path, [one, two], history=history)
    for shown in (
        "lite 224 on iPhone 15 Pro",
        "2026-11-30 15:00 UTC",
        "Fastest: lite 224 coreml fp16, 1 thread, with a median of 8.00 ms. "
        "1 of 2 measurements are not trustworthy.",
        "because 1.9 other processes ran on 2 cores",
        *("broken", "holds", "Sustained run", "What the machine allows", "49 °C", "PSA"),
        *("python -m x", "stage 3", "Over threads", "Over time", "2026-11-13"),
        "The roof's products are not in fp16, so parts in fp16 may lie above it.",
        "no energy",
    ):
        assert shown in found.text, shown
    assert found.text.index("Fastest") < found.text.index("Where the time goes")
    assert found.text.index("Where the time goes") < found.text.rindex("model on disk")
    assert "nan" not in re.sub(r"[a-z-]*nan[a-z]+", "", found.text.lower())


def test_the_summary_names_the_fastest_and_its_doubts() -> None:
    fast, slow = dated(1, 5, runtime__threads=2), dated(1, 9, runtime__threads=1)
    quiet = summary([slow, fast])
    assert quiet.startswith("Fastest: lite 224 coreml fp16, 2 threads, with a median of 5.00 ms.")
    assert "Nothing was seen" in quiet
    hot = {"after": {"thermal_state": "serious"}}
    doubted = dated(1, 5, runtime__threads=2, **hot)
    assert "1 of 2 measurements are not trustworthy, this one too." in summary([slow, doubted])
    assert "NOT TRUSTWORTHY" in summary([doubted])
    assert summary([dated(1, 5, emulated=True)]) == "Nothing was timed."


def test_parts_add_up_to_the_median() -> None:
    profile = dated(1, 8.0, **SECTIONS)
    ((_, segments),) = bars([profile], KINDS)
    times = {segment.name: segment.time_ms for segment in segments}
    # Another run took 4 ms, half of the median: 2 of its 4 ms were PSA's.
    assert times == pytest.approx({"input": 0.2, "PSA": 4.0, "head": 1.8, "unattributed": 2.0})
    assert sum(segment.width for segment in segments) == pytest.approx(1)
    assert gains(profile)[0][:3] == ("PSA", 4.0, 0.5)
    assert parts_sentence(profile) == (
        "of other runs, which took 4.00 ms, scaled to the p50 of 8.00 ms; that is 0.5 times the "
        "p50, so they are rough"
    )
    assert "rough" not in parts_sentence(dated(1, 4.1, **SECTIONS))
    costly = {**SECTIONS, "attribution": SECTIONS["attribution"] | {"profiler_share": 2.3}}
    assert "the profiler cost +230%" in parts_sentence(dated(1, 4.0, **costly))


def test_parts_never_exceed_the_whole() -> None:
    # Timed one by one, the parts took 3 ms where the whole took 2.4.
    alone = SECTIONS["attribution"] | {"whole_us": 2400.0}
    profile = dated(1, 6.0, **{**SECTIONS, "attribution": alone})
    ((_, segments),) = bars([profile], KINDS)
    times = {segment.name: segment.time_ms for segment in segments}
    assert times == pytest.approx({"input": 0.2, "PSA": 4.0, "head": 1.8, "unattributed": 0})
    assert gains(profile)[0][2] == pytest.approx(2 / 3)
    assert "(the parts, timed one by one, 3.00 ms)" in parts_sentence(profile)
    rows = dict(profile_tables._attribution_rows(profile))
    assert rows["PSA"].split() == ["66.7%", "4.00", "ms"]
    assert rows["unattributed"].split() == ["0.0%", "0.00", "ms"]
    assert rows["all parts"].split()[:3] == ["100.0%", "6.00", "ms,"]


def test_the_time_of_no_part_is_split() -> None:
    split = {"inserted_us": 400.0, "between_us": 600.0}
    whole = dated(1, 8.0, **SECTIONS)
    assert report.within_unattributed(whole) == []
    profile = dated(1, 8.0, **{**SECTIONS, "attribution": SECTIONS["attribution"] | split})
    assert report.within_unattributed(profile) == [
        ("copies and layouts", 0.1),
        ("between operations", 0.15),
    ]
    rows = dict(profile_tables._attribution_rows(profile))
    assert rows["  between operations"].split() == ["15.0%", "1.20", "ms"]


def test_a_colour_means_one_thing() -> None:
    colours = report._COLOURS
    assert set(colours) == {*KINDS, *STAGES, "unattributed"}
    assert len(set(colours.values())) == len(colours)


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours (WCAG 2)."""

    def light(colour: str) -> float:
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(first), light(second)))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_in_light_and_dark(tmp_path: Path) -> None:
    source = page(tmp_path, [dated(1, 5, **SECTIONS)]).source
    colours = {
        name: (light, dark)
        for name, light, dark in re.findall(
            r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", source
        )
    }
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    bars_of = sorted(set(report._COLOURS.values()))
    pairs = [("inside", name) for name in bars_of]
    pairs += [(name, ground) for name in ("ink", "soft", "bad", "good") for ground in ("card",)]
    for theme in (0, 1):
        for words, ground in pairs:
            found = contrast(colours[words][theme], colours[ground][theme])
            assert found >= 4.5, (words, ground, theme, found)
    values = [colours[name] for name in bars_of]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("low", "high", "log", "labels"),
    [
        (0, 200, False, ["0", "50", "100", "150", "200"]),
        (0, 2.2, False, ["0.0", "0.5", "1.0", "1.5", "2.0"]),
        (6.31, 6.52, False, ["6.35", "6.40", "6.45", "6.50"]),
        (0, 4000, False, ["0", "1,000", "2,000", "3,000", "4,000"]),
        (0.05, 200, True, ["0.1", "1", "10", "100"]),
        (0, 0, False, ["0"]),
    ],
)
def test_ticks_have_even_decimals(low: float, high: float, log: bool, labels: list[str]) -> None:
    assert [label for _, label in Axis(low, high, 0, 100, log).ticks()] == labels


def test_series_and_scaling_need_two_points() -> None:
    assert figures.series([dated(1, 5)]) is None and figures.scaling([dated(1, 5)]) == []
    drawing = figures.series([dated(1, 5), dated(8, 6)])
    assert drawing is not None
    assert sum(shape.tag == "circle" for shape in drawing.shapes) == 2
    one, four = dated(1, 8, runtime__threads=1), dated(1, 3, runtime__threads=4)
    ((name, _),) = figures.scaling([four, one])
    assert name == "lite 224 coreml fp16"


EVIL = """"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}&amp;</title>"""


def hostile(value: Any, whole: Any) -> None:
    """Put markup into every text of a document that its schema lets through."""
    for key in list(value.keys() if isinstance(value, dict) else range(len(value))):
        kept = value[key]
        if isinstance(kept, (dict, list)):
            hostile(kept, whole)
        if isinstance(kept, str):
            value[key] = f"{kept}{EVIL}"
            try:
                Profile.model_validate(whole)
            except ValidationError:
                value[key] = kept


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    whole = dated(30, 5, runtime__threads=2, **SECTIONS).model_dump(mode="json")
    whole |= {"complete": False, "incomplete_reason": "lost"}
    whole["runtime"]["settings"] = {"hint": "x", EVIL: "y"}
    whole["device"] |= {"cpu": "c", "os": "o", "cpu_features": ["f"], "architecture": "a"}
    whole["method"] = {"clock": "c", "warmup_runs": 1, "warmup_stable": True}
    whole["before"] = {"thermal_state": "hot", "governors": ["g"], "temperatures_c": {EVIL: 1.0}}
    whole["trust"] = {"trustworthy": False, "doubts": [{"cause": "x", "sentence": "s"}]}
    whole["not_measured"] = [{"what": "w", "reason": "r"}]
    hostile(whole, whole)
    assert str(whole).count("<script>") > 20
    profile = Profile.model_validate(whole)
    other = profile.model_copy(
        update={
            "runtime": profile.runtime.model_copy(update={"threads": 1}),
            "date": datetime(2026, 11, 1, tzinfo=timezone.utc),
        }
    )
    device = DeviceFile.model_validate(
        {
            "description": EVIL,
            "connection": {"kind": "local"},
            "hardware": {"cpu": EVIL},
            "notes": [EVIL],
        }
    )
    budget = BudgetLine(EVIL, EVIL, 1.0, 2.0, EVIL)
    path = tmp_path / "r.html"
    history = {profile.title: [other.model_copy(update={"runtime": profile.runtime})]}
    write_report([profile, other], [budget], device, EVIL, path, history)
    found = Page(path)
    assert {"svg", "text", "circle", "title"} <= set(found.tags)
    assert not {"script", "img", "iframe"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "src"]
    assert found.text.count("<script>alert(1)</script>") > 20  # as words
    assert found.text.count("{{ 7 * 7 }}") == found.text.count("<script>alert(1)</script>")


def test_the_template_marks_nothing_as_safe() -> None:
    folder = REPOSITORY / "sepvit_edge" / "profiling"
    assert "safe" not in (folder / "report.html.jinja").read_text()
    for name in ("report", "figures", "drawing"):
        assert "Markup" not in (folder / f"{name}.py").read_text()


def distance(name: str, sqnr_db: float, leaves: bool = False) -> TapDistance:
    return TapDistance(name, 0.01, sqnr_db, leaves)


TAPS = [
    distance("stages.0.patch_embedding", 60.0),
    distance("stages.2.blocks.4.psa", 23.0, leaves=True),
    distance("logits", 41.0),
]


def test_error_and_time_stand_at_the_same_part(tmp_path: Path) -> None:
    profile = dated(30, 8, **SECTIONS)
    found = page(tmp_path, [profile], by_block={profile.package.digest: TAPS})
    assert "Error and time, part by part" in found.text
    # The parts' run took 4 ms, the median 8: its 2 ms are shown as 4.
    assert "stages.2.blocks.4.psa: 4 ms" in found.text
    assert "stages.2.blocks.4.psa: 23.0 dB, too far" in found.text
    # The logits are what the head gives: 0.9 of 4 ms.
    assert "logits: 41.0 dB" in found.text and "logits: 1.8 ms" in found.text
    assert "Error and time" not in page(tmp_path, [profile]).text


def test_dots_lie_by_their_distance(tmp_path: Path) -> None:
    drawing = figures.error_and_time(dated(30, 8, **SECTIONS), TAPS, least_db=40)
    heights = [float(shape.attributes["cy"]) for shape in drawing.shapes if shape.tag == "circle"]
    assert heights[0] < heights[2] < heights[1] < drawing.height  # up is closer to the reference
    (limit,) = (s for s in drawing.shapes if s.attributes.get("class") == "line roof")
    at = float(limit.attributes["d"].split()[1].partition("H")[0])
    assert heights[2] < at < heights[1]
    bars = [s for s in drawing.shapes if s.hint.endswith("ms")]
    assert len(bars) == 2  # a part without a time has none


def test_model_explorer_gets_the_network_with_both(tmp_path: Path) -> None:
    program = trace(edge_model(jittered(MINI, image_size=32)))
    parts = [{"part": "stages.1.cpe", "time_us": 500.0, "operations": 1, "macs": 1, "moved_mb": 1}]
    sections = {"attribution": SECTIONS["attribution"] | {"parts": parts}}
    profile = dated(30, 8, **sections)
    digest = profile.package.digest
    taps = [distance("stages.1.cpe", 60.0), distance("stages.3.blocks.0.mlp", 50.0)]
    write_graphs([profile], {digest: program}, {digest: taps}, tmp_path / "g.json")
    (graph,) = json.loads((tmp_path / "g.json").read_text())["graphs"]
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"])
    for node in nodes.values():
        assert {edge["sourceNodeId"] for edge in node["incomingEdges"]} <= nodes.keys()
    time, error = (
        json.loads((tmp_path / f"g-{what}.json").read_text())[graph["id"]]
        for what in ("time", "sqnr")
    )
    ((name, value),) = time["results"].items()
    assert nodes[name]["namespace"] == "stages.1/cpe" and value == {"value": 1.0}
    assert name in error["results"] and len(error["results"]) == 2
    # The value of a part stands at its result: what is behind it belongs to another part.
    readers = [n for n in nodes.values() if {"sourceNodeId": name} in n["incomingEdges"]]
    assert readers and all(n["namespace"] != "stages.1/cpe" for n in readers)
