"""Paths and names of users are printed as they are, whatever rich would make of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from helpers import Runner
from PIL import Image

from sepvit_edge.cli import console
from sepvit_edge.cli.console import print_columns, print_table, progress, step_progress, steps, warn

ODD = ["pa [v2]", "[/x]", "[bold]b", "a:smile:b", "{task}", "\\[x]", "100%", "[link=x]y[/link]"]


@pytest.mark.parametrize("text", ODD)
def test_texts_are_printed_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(text, [(text, text)])
    print_columns([text, f"2 {text}"], [[text, text]])
    console.console.print(text)
    out = capsys.readouterr().out
    assert out.count(text) == 8
    with steps() as step:
        step(text)
    warn(text)
    assert capsys.readouterr().err.count(text) == 2


@pytest.mark.parametrize("text", ODD)
def test_progress_shows_texts_as_they_are(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = console.PlainConsole(
        stderr=True, highlight=False, markup=False, emoji=False, force_terminal=True, width=200
    )
    monkeypatch.setattr(console, "stderr", terminal)
    with progress(text, 3) as advance:
        advance(1)
    assert text in capsys.readouterr().err
    with step_progress(text) as show:
        show(1, 2, f"<{text}>")
    shown = capsys.readouterr().err
    assert shown.count(text) >= 2 and f"<{text}>" in shown
    with steps() as step:
        step(text)


def test_a_command_shows_warnings_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @console.command
    def main() -> None:
        """Warn three times."""
        for sentence in ("one", "one", "[two]"):
            logging.getLogger("sepvit_edge.data").warning(sentence)

    monkeypatch.setattr("sys.argv", ["main"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "warning: one\nwarning: [two]\n"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (None, "reading ...\nwarning: odd\n"),
        ("-q", ""),
        ("-v", "    0.0 s  reading ...\nwarning: odd\na fact\n"),
        ("-vv", "    0.0 s  reading ...\nwarning: odd\na fact\na detail\n"),
    ],
)
def test_quiet_and_verbose(
    option: str | None,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @console.command
    def main() -> None:
        """Say something at every level."""
        log = logging.getLogger("sepvit_edge.data")
        with steps() as step, progress("a bar", 2) as advance:
            step("reading")
            advance(1)
        log.warning("odd")
        log.info("a fact")
        log.debug("a detail")

    monkeypatch.setattr("sys.argv", ["main", *([option] if option else [])])
    monkeypatch.setattr(console.time, "monotonic", lambda: 0.0)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == said
    assert logging.getLogger("sepvit_edge").level == logging.NOTSET


def test_a_name_that_is_no_text_is_printed(
    run_command: Runner, tmp_path: Path, package_path: Path
) -> None:
    name = os.fsdecode(b"caf\xe9 [v2].png")
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    done = run_command("predict", package_path, tmp_path)
    assert done.status == 2 and "caf\\udce9 [v2].png" in done.out and "\\udcff.png" in done.err


ESCAPES = ("\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "a\rb", "\x00", "abc\u202edef", "\u2066x")


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("text", ESCAPES)
def test_control_characters_are_spelt_out(
    text: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a file or a device says could otherwise move the cursor and rewrite the screen."""
    for name in ("console", "stderr"):
        made = console.PlainConsole(
            stderr=name == "stderr", highlight=False, markup=False, emoji=False, width=200,
            force_terminal=terminal, color_system=None, legacy_windows=False,
        )  # fmt: skip
        monkeypatch.setattr(console, name, made)
    print_table(text, [(text, text)])
    print_columns([text, "b"], [[text, text]])
    warn(text)
    console._fail(text)
    console.emit_json([text])
    out, err = capsys.readouterr()
    assert not any(c in out + err for c in "\x1b\x07\x9b\r\x00\u202e\u2066"), (out, err)
    if not set(text) & set("\x07\r\x00"):  # which rich removes
        assert err.count(text.encode("unicode_escape").decode()) == 2
