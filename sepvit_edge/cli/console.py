"""What the commands share: how they start, fail, show progress and print."""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..errors import SepViTError

if TYPE_CHECKING:
    from ..package.manifest import Parity

console = Console(highlight=False)
# Progress and errors leave standard output to the result.
stderr = Console(stderr=True, highlight=False)


def command(function: Callable[..., Any]) -> Callable[[], None]:
    """Make a typer command of a function: bad input ends in one sentence and an exit status."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        status = 0
        try:
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
        except KeyboardInterrupt:
            _fail("interrupted; nothing was written")
            status = 130
        # Runtimes' threads may outlive an interruption: leave without waiting for them.
        if status == 130:
            sys.stderr.flush()
            os._exit(status)
        raise typer.Exit(status)

    def run() -> None:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(help=_one_line_a_paragraph(function.__doc__ or ""))(guarded)
        app()

    return run


def _one_line_a_paragraph(text: str) -> str:
    """Leave wrapping to the terminal, which would add its own to the source's."""
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
    """Say on standard error what went wrong with one of several inputs."""
    stderr.print(Text.assemble(("warning: ", "yellow"), sentence), soft_wrap=True)


def emit_json(document: object) -> None:
    """Print a document for programs."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print pairs of name and value; an empty name starts a new section."""
    table = Table(title=title, title_justify="left", show_header=False, min_width=50)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, value in rows:
        if name:
            table.add_row(name, Text(value))
        else:
            table.add_section()
    console.print(table)


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with a header; what is too long is wrapped, not cut.

    Names in the first column stay whole, where they are short enough to leave the others room.
    """
    first, *others = header
    table = Table()
    table.add_column(first, no_wrap=all(len(row[0]) <= 24 for row in rows))
    for name in others:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(table)


def parity_rows(parity: Parity) -> list[tuple[str, str]]:
    """Rows of a table that state a parity measurement."""
    rows = [
        ("compared on", f"{parity.images} images of {parity.data}"),
        ("max abs error", f"{parity.max_abs_error:.2g} (logits span {parity.logits_range:.3g})"),
        ("SQNR", f"{parity.sqnr_db:.1f} dB against fp32"),
        ("top-1 agreement", f"{parity.top1_agreement:.2%}"),
    ]
    if parity.sqnr_quantized_db is not None:
        rounding = f"{parity.sqnr_quantized_db:.1f} dB against torch's int8"
        rows.insert(3, ("SQNR of rounding", rounding))
    if parity.sqnr_cpu_db is not None:
        own = f"{parity.sqnr_cpu_db:.1f} dB against the same on a CPU"
        rows.insert(-1, ("SQNR of the NPU", own))
    if parity.top1_reference is not None and parity.top1_package is not None:
        rows.append(("top-1 reference", f"{parity.top1_reference:.2%}"))
        rows.append(("top-1 package", f"{parity.top1_package:.2%}"))
    if parity.top1_difference is not None and parity.top1_difference_interval is not None:
        low, high = parity.top1_difference_interval
        interval = f"95 % interval {low:+.2%} to {high:+.2%}, McNemar p = {parity.mcnemar_p:.2g}"
        rows.append(("difference", f"{parity.top1_difference:+.2%} ({interval})"))
    return rows


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being done while the block runs.

    Yields
    ------
    callable
        Takes what is done next.
    """
    with stderr.status("starting") as status:
        yield lambda text: status.update(f"{text} ...")


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
