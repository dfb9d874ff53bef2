"""The frame of every command: how it starts, fails, shows progress and prints."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..errors import Interrupted, SepViTError

console = Console(highlight=False)
# Progress and errors leave standard output to the result.
stderr = Console(stderr=True, highlight=False)


def command(function: Callable[..., Any]) -> Callable[[], None]:
    """Turn a function into a typer command whose errors are one sentence and an exit status."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        status = 0
        try:
            with _noting_interrupts():
                function(*args, **kwargs)
        except SepViTError as error:
            _fail(str(error))
            status = error.exit_status
        except OSError as error:
            if error.errno not in _OS_ERRORS:
                raise
            where = f" ({error.filename})" if error.filename else ""
            _fail(f"{_OS_ERRORS[error.errno]}{where}")
            status = 2
        # Runtimes' threads may outlive an interruption: leave without waiting for them.
        if status == Interrupted.exit_status:
            sys.stderr.flush()
            os._exit(status)
        raise typer.Exit(status)

    def run() -> None:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(help=_one_line_a_paragraph(function.__doc__ or ""))(guarded)
        app()

    return run


@contextmanager
def _noting_interrupts() -> Iterator[None]:
    """Turn Ctrl-C into `Interrupted`, even if a library turned it into an error of its own.

    OpenVINO's and others' native code catch KeyboardInterrupt while they call back into Python.
    """
    noted: list[int] = []

    def note(number: int, _frame: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    # A shell that runs a command in the background has it ignored: that stays.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except Exception:
        if noted:
            raise Interrupted("interrupted") from None
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _one_line_a_paragraph(text: str) -> str:
    """Join the lines of each paragraph, which the terminal wraps again."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


_OS_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space and run it again",
    errno.EACCES: "permission denied; choose another folder",
    errno.EPERM: "permission denied; choose another folder",
    errno.EROFS: "the folder is read-only; choose another one",
}


def _fail(sentence: str) -> None:
    stderr.print(Text.assemble(("error: ", "bold red"), sentence), soft_wrap=True)


def warn(sentence: str) -> None:
    """Print a warning on standard error."""
    stderr.print(Text.assemble(("warning: ", "yellow"), sentence), soft_wrap=True)


def emit_json(document: object) -> None:
    """Print a document as JSON on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print pairs of name and value; an empty name starts a new section."""
    table = Table(title=Text(title), title_justify="left", show_header=False, min_width=50)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, value in rows:
        if name:
            table.add_row(name, Text(value))
        else:
            table.add_section()
    console.print(table)


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with a header; long cells are wrapped, not cut.

    Names in the first column stay on one line if they are short enough to leave the others room.
    """
    first, *others = header
    table = Table()
    table.add_column(first, no_wrap=all(len(row[0]) <= 24 for row in rows))
    for name in others:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(table)


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Show the current step on standard error while the block runs.

    Yields
    ------
    callable
        Takes the name of the next step.
    """
    with stderr.status("starting") as status:
        yield lambda text: status.update(Text(f"{text} ..."))


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error while the block runs.

    Yields
    ------
    callable
        Takes the number of steps done since the last call.
    """
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def step_progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar over numbered steps on standard error, with a text that changes.

    Yields
    ------
    callable
        Takes the step, the number of steps and the text.
    """
    text = TextColumn("{task.fields[text]}")
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text)
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(title, total=None, text="")
        yield lambda step, steps, text: bar.update(task, completed=step, total=steps, text=text)
