"""What commands print where there is no terminal: whole words, and each step as a line."""

from __future__ import annotations

import re

import pytest

from sepvit_edge.cli import console as module
from sepvit_edge.cli.console import print_columns, steps

HEADER = ["", "", "before", "after", "ratio", "95 % interval", ""]
TITLE = "local: lite 224 openvino int8, 2 threads"
ROW = [TITLE, "p50", "12.00 ms", "14.00 ms", "1.167", "1.150-1.180", "REGRESSION"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100])
def test_no_word_of_a_table_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_columns(HEADER, [ROW, ["coremltools", *ROW[1:-1], "may be chance"]])
    printed = capsys.readouterr().out
    words = set(re.split(r"[\s│┃┏┡└─━┳╇┴┓┩┘]+", printed))
    assert {"REGRESSION", "coremltools", "1.150-1.180", "openvino", "interval"} <= words
    if width >= 80:
        assert max(map(len, printed.splitlines())) <= width


def test_a_step_is_a_line_and_counting_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with steps() as step:
        step("warming up")
        for second in range(61):
            now[0] = 101.0 + second
            step(f"sustained run: {second} of 60 s")
        step("[red]done[/red]")
    assert capsys.readouterr().err.splitlines() == [
        "warming up ...",
        "sustained run: 0 of 60 s ...",
        "sustained run: 30 of 60 s ...",
        "sustained run: 60 of 60 s ...",
        "[red]done[/red] ...",
    ]
