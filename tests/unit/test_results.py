"""Kept results: their history, and what a comparison of two of them may say."""

from __future__ import annotations

import errno
import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, Runner, profile_with

from sepvit_edge.errors import SepViTError
from sepvit_edge.profiling import changes
from sepvit_edge.profiling import results as module
from sepvit_edge.profiling.changes import compare_profiles, differences
from sepvit_edge.profiling.document import Profile
from sepvit_edge.profiling.results import (
    find_results,
    history,
    load_folder,
    load_results,
    name_of,
    save_result,
)

NAME = "iPhone_15_Pro_lite-224_coreml-fp16_defaultt_00000000_18.0"


def measured(p50: float, day: str = "", **changes: Any) -> Profile:
    """A quiet measurement at noon of a day of November 2026."""
    profile = profile_with(np.full(60, p50), **changes)
    if not day:
        return profile
    date = datetime(2026, 11, int(day), 12, tzinfo=timezone.utc)
    return profile.model_copy(update={"date": date})


def p50s(profiles: list[Profile]) -> list[float]:
    return [profile.latency.p50_ms for profile in profiles if profile.latency]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn here is all the same: a few times tell as much as two thousand."""
    monkeypatch.setattr(changes, "_RESAMPLES", 20)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """An undated result of 9 ms, 10 ms on the 13th, 12 ms on the 20th."""
    for profile in (measured(9), measured(10, "13"), measured(12, "20")):
        save_result(profile, tmp_path)
    return tmp_path


def test_a_full_disk_leaves_no_half_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_result(measured(10, "13"), tmp_path)
    before = sorted(tmp_path.iterdir())
    write = Path.write_text

    def full(self: Path, text: str, **rest: Any) -> int:
        write(self, text[:100], **rest)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        save_result(measured(11, "20"), tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_that_is_kept_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = measured(10, "13"), measured(11, "13")
    paths = [save_result(profile, tmp_path / "a" / "b") for profile in (first, second, first)]
    assert [load_results(path) for path in paths] == [[first], [second], [first]]
    assert paths[0].name == f"{NAME}@2026-11-13T120000Z.json"
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(
        path.name for path in paths
    )

    def unsupported(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(module.os, "link", unsupported)
    assert load_results(save_result(second, tmp_path / "a" / "b")) == [second]
    assert len(list((tmp_path / "a" / "b").iterdir())) == 4


def test_a_name_is_its_latest_and_a_day_the_latest_until_then(kept: Path) -> None:
    for reference, p50 in (
        (NAME, 12),
        ("iPhone_15_Pro_lite-224", 12),
        (f"{NAME}@2026-11-21", 12),
        (f"{NAME}@2026-11-20", 12),
        (f"{NAME}@2026-11-19", 10),
        (f"{NAME}@2026-11-13", 10),
        (f"{NAME}@2026-11-13T120000Z", 10),
        (f"{NAME}@2026-11-12", 9),  # a file from before dates were kept
        (str(kept / f"{NAME}.json"), 9),
    ):
        assert p50s(find_results(reference, kept)) == [p50], reference
    assert p50s(load_folder(kept)) == [12]
    assert p50s(history(measured(1), kept)) == [10, 12]
    for reference, message in (
        ("iPhone_1", "unknown result 'iPhone_1'"),
        ("iPhone_15_Prx_lite-224_coreml-fp16", "did you mean 'iPhone_15_Pro_lite-224_coreml-fp16"),
        (f"{NAME}@last week", "is not a day"),
        (f"{NAME}@2026-13-01", "is not a day"),
        ("none.json", "there is no result none.json"),
        ("none/x", "there is no result none/x"),
    ):
        with pytest.raises(SepViTError, match=message):
            find_results(reference, kept)
    (kept / f"{NAME}.json").unlink()
    with pytest.raises(SepViTError, match=r"of 2026-11-12 or before; the first is of 2026-11-13"):
        find_results(f"{NAME}@2026-11-12", kept)
    with pytest.raises(SepViTError, match="measure with --save first"):
        find_results(NAME, kept / "none")


def test_repeats_have_one_date_and_settings_are_apart(tmp_path: Path) -> None:
    for p50, day, threads in ((9, "13", 1), (10, "20", 1), (11, "20", 1), (6, "13", 2)):
        save_result(measured(p50, day, runtime__threads=threads), tmp_path)
    # Another package and another runtime's version are the history of the same setting.
    changed = {"package__digest": "f" * 64, "runtime__version": "19.0"}
    save_result(measured(5, "24", runtime__threads=2, **changed), tmp_path)
    stem = "iPhone_15_Pro_lite-224_coreml-fp16"
    assert sorted(p50s(find_results(stem, tmp_path))) == [5, 10, 11]
    assert sorted(p50s(find_results(f"{stem}@2026-11-13", tmp_path))) == [6, 9]
    assert p50s(find_results(f"{stem}_2t", tmp_path)) == [5]


def test_the_results_of_the_repository_are_found_by_name() -> None:
    folder = REPOSITORY / "profiles" / "results"
    found = find_results("local_lite-224_openvino-int8@2026-11-01", folder)
    assert [p.title for p in found] == [
        "lite 224 openvino int8, 1 thread",
        "lite 224 openvino int8, 2 threads",
    ]


def test_compare_exits_with_1_on_a_regression(run_command: Runner, kept: Path) -> None:
    week = ("--results", kept, "--compare", f"{NAME}@2026-11-13")
    done = run_command("profile", *week, NAME)
    assert done.status == 1 and "p50 +20.0%" in done.err and "REGRESSION" in done.out
    assert "before: 2026-11-13 12:00 UTC, after: 2026-11-20 12:00 UTC" in done.out
    assert run_command("profile", *week, NAME, "--tolerance", 30).status == 0
    assert run_command("profile", *week, kept / f"{NAME}.json").status == 0  # faster


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"runtime__threads": 2}, "threads default before, 2 after"),
        ({"runtime__name": "onnxruntime"}, "runtime Core ML before, onnxruntime after"),
        ({"runtime__execution": "CPU"}, "execution all before, CPU after"),
        ({"package__precision": "int8"}, "precision fp16 before, int8 after"),
        ({"package__image_size": 160}, "image size 224 before, 160 after"),
        ({"device__name": "Pixel 8"}, "device iPhone 15 Pro before, Pixel 8 after"),
        ({"producer__name": "runner"}, "program ios-app before, runner after"),
        ({"runtime__settings": {"hint": "x"}}, "hint none before, x after"),
    ],
)
def test_other_settings_are_named_and_are_no_regression(
    run_command: Runner, tmp_path: Path, setting: dict[str, Any], named: str
) -> None:
    first, second = measured(10), measured(20, **setting)
    paths = [save_result(p, tmp_path / str(i)) for i, p in enumerate((first, second))]
    done = run_command("profile", "--compare", *paths)
    assert done.status == 0 and f"OTHER SETTING: {named}" in done.out
    assert "REGRESSION" not in done.out and "other settings" in done.out
    told = json.loads(run_command("profile", "--compare", *paths, "--json").out)
    assert told[0]["comparable"] is False and told[0]["ratio"] == 2
    assert told[0]["differences"][0]["compared"] is False


def test_what_is_compared_is_named_too() -> None:
    changed = {"package__digest": "f" * 64, "runtime__version": "19.0", "producer__version": "2.0"}
    first, second = measured(10), measured(20, **changed)
    found = {d.what: (d.before, d.after, d.compared) for d in differences(first, second)}
    assert found == {
        "package": ("0" * 12, "f" * 12, True),
        "runtime's version": ("18.0", "19.0", True),
        "program's version": ("1.0", "2.0", True),
    }
    assert compare_profiles([first], [second], 0.05)[0].verdict == "REGRESSION"


def test_times_that_are_not_trustworthy_are_no_regression(
    run_command: Runner, tmp_path: Path
) -> None:
    busy = {"interference": {"seconds": 10, "cores": 2, "others_s": 19}}
    paths = [
        save_result(profile, tmp_path / str(i))
        for i, profile in enumerate((measured(10), measured(20, package__model_mb=9.0, **busy)))
    ]
    found = compare_profiles(*(load_results(path) for path in paths), 0.05)
    verdicts = {change.what: change.verdict for change in found}
    assert verdicts == {
        "p50": "not trustworthy",
        "p90": "not trustworthy",
        "model on disk": "REGRESSION",  # which no other process can change
    }
    done = run_command("profile", "--compare", *paths, "--tolerance", 50)
    assert done.status == 0
    assert "NOT TRUSTWORTHY after: 1.9 other processes ran on 2 cores" in done.out
    strict = run_command("profile", "--compare", *paths, "--tolerance", 50, "--strict")
    assert strict.status == 1 and "1.9 other processes" in strict.err


def test_a_folder_that_cannot_be_is_refused_before_measuring(
    run_command: Runner, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for options, message in (
        (("--save", "--results", tmp_path / "file"), "is not a folder"),
        (("--save", "--results", tmp_path / "file" / "x"), "is not a folder"),
        (("--report", tmp_path / "none" / "r.html"), "--report .*does not exist"),
        (("--trace", tmp_path), "--trace .*is a folder"),
    ):
        done = run_command("profile", "no-package", *options)
        assert done.status == 2 and "no-package" not in done.err, options
        assert re.search(message, done.err), done.err


def test_names_hold_what_tells_measurements_apart() -> None:
    assert name_of(measured(1)) == NAME
    odd = name_of(measured(1, device__name="a@b~2/../c\n"))
    assert odd.startswith("a_b_2_.._c__lite-224_")
