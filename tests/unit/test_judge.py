"""The judgement on times: each reason on its cause, none on a quiet run. No time is taken here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, TESTS, Runner, profile_with

from sepvit_edge import machine
from sepvit_edge.errors import CheckFailed
from sepvit_edge.profiling import first_look
from sepvit_edge.profiling.budgets import faults
from sepvit_edge.profiling.document import Interference, Profile, Trust
from sepvit_edge.profiling.judge import doubts_about_runs, judged, trust_of, two_groups
from sepvit_edge.profiling.results import load_results
from sepvit_edge.profiling.runner import interference

QUIET = {"seconds": 10.0, "cores": 4, "others_s": 1.0, "stolen_s": 0.1}


def quiet_runs(count: int = 200, seed: int = 0, p50: float = 10.0) -> np.ndarray:
    """Times as a quiet machine has them: 2 % wide, each fiftieth far too slow."""
    rng = np.random.default_rng(seed)
    runs = p50 * (1 + 0.02 * np.abs(rng.normal(0, 1, count)))
    return np.where(rng.random(count) < 0.02, 3 * runs, runs)


def causes(**changes: Any) -> list[str]:
    profile = profile_with(changes.pop("runs", quiet_runs()), **changes)
    trust = judged([profile])[0].trust
    assert trust is not None and trust.trustworthy == (not trust.doubts)
    return [doubt.cause for doubt in trust.doubts]


def test_quiet_runs_are_trustworthy() -> None:
    for seed in range(200):
        for count in (3, 15, 20, 50, 1000):
            assert doubts_about_runs(quiet_runs(count, seed)) == [], (seed, count)
    rng = np.random.default_rng(0)
    for shape in (rng.normal(10, 0.3, 500), rng.uniform(8, 12, 500), 10 + rng.exponential(1, 500)):
        assert two_groups(shape) is None
    assert causes(interference=QUIET) == []
    clock = {"frequencies_mhz": [2400.0, 1500.0], "throttle_events": 7, "thermal_state": "nominal"}
    assert causes(before=clock, after=clock | {"frequencies_mhz": [2200.0, 2100.0]}) == []
    # One of our own measurements just before, with a thread for each core.
    assert causes(device__logical_cores=2, before={"load_average": 2.2}) == []


@pytest.mark.parametrize(
    ("cause", "changes"),
    [
        ("others", {"interference": QUIET | {"others_s": 19.0}}),
        ("stolen", {"interference": QUIET | {"stolen_s": 2.0}}),
        ("load", {"device__logical_cores": 2, "before": {"load_average": 15.8}}),
        ("drift", {"runs": np.linspace(10, 12, 100)}),
        ("drift", {"runs": np.linspace(12, 10, 100)}),
        ("modes", {"runs": np.where(np.arange(200) % 3, quiet_runs(), 1.6 * quiet_runs())}),
        ("throttled", {"before": {"throttle_events": 1}, "after": {"throttle_events": 3}}),
        (
            "clock",
            {"before": {"frequencies_mhz": [2400.0]}, "after": {"frequencies_mhz": [1500.0]}},
        ),
        ("heat", {"after": {"thermal_state": "throttled, soft temperature limit"}}),
        ("heat", {"before": {"thermal_state": "severe"}}),
        ("power", {"before": {"low_power_mode": True}}),
    ],
)
def test_each_reason_fires_on_its_cause(cause: str, changes: dict[str, Any]) -> None:
    assert causes(**changes) == [cause]


def test_the_reasons_have_their_figures() -> None:
    busy = profile_with(quiet_runs(), interference=QUIET | {"cores": 2, "others_s": 19.0})
    trust = judged([busy])[0].trust
    assert trust is not None and trust.because == "1.9 other processes ran on 2 cores"
    steps = profile_with(np.repeat([10.0, 15.0], 50))
    assert judged([steps])[0].trust.because == (  # type: ignore[union-attr]
        "the last third of the runs was 50 % slower than the first; "
        "the times fall into two groups, around 10 and 15 ms"
    )


def test_what_is_measured_beats_the_load() -> None:
    # The load of the last minute was somebody's who has finished.
    loaded = {"device__logical_cores": 4, "before": {"load_average": 15.8}}
    assert causes(interference=QUIET, **loaded) == []
    assert causes(interference=QUIET | {"seconds": 0.1, "others_s": 0.4}) == []  # a few ticks


def test_more_threads_are_not_slower() -> None:
    def measured(p50: float, threads: int | None, **changes: Any) -> Profile:
        return profile_with(quiet_runs(p50=p50), runtime__threads=threads, **changes)

    def doubted(*profiles: Profile) -> list[bool]:
        return [bool(p.trust and p.trust.doubts) for p in judged(profiles)]

    assert doubted(measured(8, 1), measured(51, 2), measured(4, 4)) == [False, True, False]
    assert doubted(measured(8, 1), measured(8.4, 2), measured(9, None)) == [False, False, False]
    assert doubted(measured(8, 1), measured(51, 2, device__name="other")) == [False, False]
    assert doubted(measured(8, 1), measured(51, 2, package__precision="int8")) == [False, False]


def test_an_emulator_is_not_judged_and_an_older_document_is() -> None:
    emulated = profile_with(np.linspace(10, 20, 100), emulated=True)
    assert judged([emulated])[0].trust is None
    drifting = profile_with(np.linspace(10, 20, 100))
    assert drifting.trust is None and not trust_of(drifting).trustworthy  # type: ignore[union-attr]


def test_few_of_the_measurements_that_are_kept_are_doubted() -> None:
    found = {}
    for path in sorted((REPOSITORY / "profiles" / "results").glob("*.json")):
        (profile,) = load_results(path)
        trust = trust_of(profile)
        assert trust is not None
        if profile.date is None:
            found[profile.title] = [doubt.cause for doubt in trust.doubts]
    doubted = {title for title, doubts in found.items() if doubts}
    # Looked at one by one: each of these has a step, or two groups, in its times.
    assert doubted == found.keys() & {
        "lite 224 executorch int8, 2 threads",
        "lite 224 onnxruntime fp16, 2 threads",
        "lite 224 onnxruntime int8, 2 threads",
        "lite 224 openvino int8, 2 threads",
        "t 224 executorch int8, 1 thread",
        "t 224 executorch int8, 2 threads",
        "t 224 onnxruntime fp16, 2 threads",
        "t 224 openvino fp32, 2 threads",
    }


STAT = """cpu  9 9 9 9 9 9 9 9 9 9
cpu0 100 20 30 5000 7 4 6 50 11 1
cpu1 1000 0 0 5000 0 0 0 0 0 0
cpu2 10 0 5 5000 0 0 0 25 0 0
intr 7
"""


def test_times_of_cores_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interference.core_times(STAT, [0, 2], ticks=100) == (1.75, 0.75)
    for lacking in (STAT.replace("cpu2", "cpu3"), "cpu0 1 2 x 4", "cpu0 1 2", ""):
        assert interference.core_times(lacking, [0, 2], ticks=100) is None
    now = {"wall": 100.0, "own": 1.0, "text": STAT}
    monkeypatch.setattr(machine, "usable_cores", lambda: [0, 2])
    monkeypatch.setattr(machine, "read_text", lambda path: now["text"])
    monkeypatch.setattr(interference.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(interference.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(interference.time, "process_time", lambda: now["own"])
    watch = interference.Watch()
    text = STAT.replace("cpu0 100", "cpu0 1400").replace("5000 0 0 0 25", "5000 0 0 0 125")
    now.update(wall=110.0, own=10.0, text=text)
    reading = watch.reading()  # 13 s of work, 9 of them ours
    assert reading == {"seconds": 10.0, "cores": 2, "others_s": 4.0, "stolen_s": 1.0}
    assert Interference.model_validate(reading).others == pytest.approx(0.4)
    now["own"] = 30.0
    assert watch.reading()["others_s"] == 0  # type: ignore[index]
    now["text"] = None
    assert watch.reading() is None


BUSY = {"seconds": 1.0, "cores": 2, "others_s": 1.9, "stolen_s": 0.0}


@pytest.mark.parametrize(("reading", "doubted"), [(QUIET, False), (BUSY, True), (None, False)])
def test_an_export_s_time_is_judged(
    reading: dict[str, Any] | None, doubted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from sepvit_edge import export
    from sepvit_edge.cli.tables import export_rows
    from sepvit_edge.package.folder import Package

    class Watch:
        def reading(self) -> dict[str, Any] | None:
            return reading

    # Each call takes 10 ms of a clock that only moves when a call does.
    now = [0.0]

    def call(_pixels: object) -> None:
        now[0] += 0.01

    monkeypatch.setattr(first_look, "Watch", Watch)
    monkeypatch.setattr(first_look, "_pixels", lambda _: None)
    monkeypatch.setattr(first_look.time, "perf_counter", lambda: now[0])
    session: Any = SimpleNamespace(run_pixels=call)
    found = first_look.measure_latency(session, 2)
    assert found.p50_ms == 10 and found.runs == 50
    assert found.doubts == (("1.9 other processes ran on 2 cores",) if doubted else ())
    package = Package(TESTS / "vectors" / "package")
    rows = dict(export_rows(package, found))
    assert ("NOT TRUSTWORTHY" in rows) == doubted
    export._check_times([(package, found)], strict=False)
    if doubted:
        with pytest.raises(CheckFailed, match=r"1\.9 other processes ran on 2 cores"):
            export._check_times([(package, found)], strict=True)
    else:
        export._check_times([(package, found), (package, None)], strict=True)


def test_strict_fails_on_times_that_are_not_trustworthy() -> None:
    quiet, busy = judged([profile_with(quiet_runs(), interference=r) for r in (QUIET, BUSY)])
    assert faults([quiet, busy], []) == faults([quiet], [], strict=True) == []
    (sentence,) = faults([quiet, busy], [], strict=True)
    assert sentence.endswith("is not trustworthy, because 1.9 other processes ran on 2 cores")


def test_the_command_says_it_everywhere(run_command: Runner, tmp_path: Path) -> None:
    busy = profile_with(quiet_runs(), interference=BUSY)
    # What the document says of itself counts for nothing.
    forged = busy.model_copy(update={"trust": Trust(trustworthy=True)})
    path, page = tmp_path / "app.json", tmp_path / "r.html"
    path.write_text(forged.model_dump_json())
    options = ("--app-file", path, "--report", page)
    done = run_command("profile", *options)
    assert done.status == 0
    assert "NOT TRUSTWORTHY" in done.out and "1.9 other processes ran on 2 cores" in done.out
    assert "1.9 other processes ran on 2 cores" in page.read_text()
    strict = run_command("profile", *options, "--strict", "--json")
    assert strict.status == 1 and "1.9 other processes" in strict.err
    (document,) = json.loads(strict.out)
    assert document["trust"]["trustworthy"] is False and document["date"].endswith("Z")
    assert [doubt["cause"] for doubt in document["trust"]["doubts"]] == ["others"]
