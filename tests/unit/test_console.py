"""The frame of every command: errors of the system are one sentence."""

from __future__ import annotations

import errno
import os
import sys

import pytest
import torch

from sepvit_edge.cli.console import command


def too_much() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def failing(number: int) -> None:
    raise OSError(number, os.strerror(number), "x/y")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda: os.stat("no/such/file"), "there is no such file or folder (no/such/file)"),
        (
            lambda: os.stat("/dev/null/x"),
            "a part of the path is a file, not a folder (/dev/null/x)",
        ),
        (lambda: os.open("/", os.O_WRONLY), "there is a folder where a file belongs (/)"),
        (lambda: os.mkdir("/"), "there is something where a new file or folder belongs (/)"),
        (lambda: os.stat("n" * 256), "the name is too long; choose a shorter one (nnn"),
        (lambda: failing(errno.ENOSPC), "the disk is full; free some space and run it again (x/y)"),
        (lambda: failing(errno.EIO), "the disk has failed to read or write (x/y)"),
        (too_much, "the memory is full; give a smaller --image-size or --batch"),
    ],
)
def test_errors_of_the_system_are_one_sentence(
    fault, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main() -> None:
        fault()

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as leaving:
        main()
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and said.startswith(f"error: {sentence}"), said
    assert said.count("\n") == 1


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    @command
    def main() -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main()
