"""The frame of every command: how it starts, fails, shows progress and prints."""

from __future__ import annotations

import functools
import inspect
import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..errors import Interrupted, SepViTError
from .faults import noting_interrupts, system_fault
from .layout import column_widths

_logger = logging.getLogger(__name__.partition(".")[0])
# Characters that move the cursor, ring, colour, or turn the direction of text; not line breaks.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class PlainConsole(Console):
    """A console on which text of files and devices is text: control characters are spelt out."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render an object, with the codes in place of its control characters."""
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROL.search(segment.text):
                yield segment
            else:
                yield segment._replace(text=_spelt_out(segment.text))


def _spelt_out(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


# Paths and names of users are printed as they are: nothing in a text is markup or an emoji's name.
console = PlainConsole(highlight=False, markup=False, emoji=False)
# Progress and errors leave standard output to the result.
stderr = PlainConsole(stderr=True, highlight=False, markup=False, emoji=False)
# Between two lines without a terminal: of a step that counts, and of a bar.
_COUNTING_S, _PROGRESS_S = 30.0, 10.0


Verbose = Annotated[
    int,
    typer.Option(
        *("--verbose", "-v"),
        count=True,
        show_default=False,
        help="Print each step with its time; -vv also what the library logs.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print no progress and no warnings, only errors.")
]


# What typer lacks: -h.
HELP = {"help_option_names": ["-h", "--help"]}


class Command:
    """A command: run alone as `python -m sepvit_edge.NAME`, or as one of `sepvit-edge`.

    Its errors are one sentence and an exit status.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = _guarded(function)
        self._help = _one_line_a_paragraph(function.__doc__ or "")

    def __call__(self) -> None:
        """Run with the arguments of the process."""
        app = typer.Typer(
            add_completion=False, pretty_exceptions_enable=False, context_settings=HELP
        )
        app.command(help=self._help)(self._function)
        run_app(app)

    def add_to(self, app: typer.Typer, name: str, summary: str) -> None:
        """Become a command of an application, with a line in its list of commands."""
        app.command(name, help=self._help, short_help=summary)(self._function)


def command(function: Callable[..., Any]) -> Command:
    """Turn a function into a command; its parameters are the options, beside -v and -q."""
    return Command(function)


def run_app(app: typer.Typer) -> None:
    """Run an application with the arguments of the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file's name may hold bytes that are no text: print them as \udcff.
            stream.reconfigure(errors="backslashreplace")
    app()


def _guarded(function: Callable[..., Any]) -> Callable[..., None]:
    """Add -v and -q to a function, and turn its errors into one sentence and an exit status."""

    @functools.wraps(function)
    def guarded(*args: Any, verbose: int = 0, quiet: bool = False, **kwargs: Any) -> None:
        status = 0
        try:
            with _showing(verbose, quiet), noting_interrupts():
                function(*args, **kwargs)
        except SepViTError as error:
            _fail(str(error))
            status = error.exit_status
        except (OSError, MemoryError, RuntimeError) as error:
            sentence = system_fault(error)
            if sentence is None:
                raise
            _fail(sentence)
            status = 2
        # Runtimes' threads may outlive an interruption: leave without waiting for them.
        if status == Interrupted.exit_status:
            sys.stderr.flush()
            os._exit(status)
        raise typer.Exit(status)

    signature = inspect.signature(function, eval_str=True)
    ours = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, kind, default in (("verbose", Verbose, 0), ("quiet", Quiet, False))
    ]
    parameters = [*signature.parameters.values(), *ours]
    guarded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    guarded.__annotations__ = {each.name: each.annotation for each in parameters}
    return guarded


class _Messages(logging.Handler):
    """Shows what the library logs, each warning once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage()
        if record.levelno < logging.WARNING:
            stderr.print(Text(sentence), soft_wrap=True)
        elif sentence not in self._said:
            self._said.add(sentence)
            warn(sentence)


@contextmanager
def _showing(verbose: int, quiet: bool) -> Iterator[None]:
    """Show on standard error what the library logs while the block runs.

    The level of the package's logger is also what progress and steps go by: `-q` is ERROR, `-v` is
    INFO, `-vv` is DEBUG.
    """
    level = logging.ERROR if quiet else max(logging.DEBUG, logging.WARNING - 10 * verbose)
    shown, before = _Messages(), _logger.level
    _logger.addHandler(shown)
    _logger.setLevel(level)
    _logger.propagate = False  # a handler that some toolchain installs would say it again
    try:
        yield
    finally:
        _logger.propagate = True
        _logger.setLevel(before)
        _logger.removeHandler(shown)


def _one_line_a_paragraph(text: str) -> str:
    """Join the lines of each paragraph, which the terminal wraps again."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _fail(sentence: str) -> None:
    stderr.print(Text.assemble(("error: ", "bold red"), sentence), soft_wrap=True)


def warn(sentence: str) -> None:
    """Print a warning on standard error."""
    if not _quiet():
        stderr.print(Text.assemble(("warning: ", "yellow"), sentence), soft_wrap=True)


def emit_json(document: object) -> None:
    """Print a document as JSON on standard output."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # JSON spells out the first 32 characters; others may steer a terminal too.
    text = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    sys.stdout.write(f"{text}\n")


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
    """Print a table with a header; no word is cut or broken.

    Where the terminal is too narrow for the borders, they are left out; where it is too narrow
    for the words of a row side by side, they are printed one below the other, a line a cell.
    """
    table = Table()
    widths = column_widths(header, rows, console.width, border=4, gap=3)
    if widths is None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        widths = column_widths(header, rows, console.width)
    if widths is None:
        names = max(cell_len(name) for name in header[1:])
        for title, *cells in rows:
            console.print(Text(title, style="bold"), soft_wrap=True)
            for name, cell in zip(header[1:], cells, strict=True):
                console.print(Text(f"  {name:{names}}  {cell}".rstrip()), soft_wrap=True)
        return
    for name, width in zip(header, widths, strict=True):
        table.add_column(name, width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Show the current step on standard error while the block runs.

    Where standard error is not a terminal, each step is a line; one that only counts further
    (``5 of 60 s``) is written again twice a minute. With -v they are lines with the seconds since
    the start; with -q there are none.

    Yields
    ------
    callable
        Takes the name of the next step.
    """
    if _quiet():
        yield lambda text: None
        return
    verbose = _logger.isEnabledFor(logging.INFO)
    if stderr.is_terminal and not verbose:
        with stderr.status("starting") as status:
            yield lambda text: status.update(Text(f"{text} ..."))
        return
    said, when, began = "", 0.0, time.monotonic()

    def tell(text: str) -> None:
        nonlocal said, when
        kind, now = re.sub(r"\d+", "0", text), time.monotonic()
        if kind != said or now - when >= _COUNTING_S:
            said, when = kind, now
            elapsed = f"{now - began:7.1f} s  " if verbose else ""
            stderr.print(Text(f"{elapsed}{text} ..."), soft_wrap=True)

    yield tell


def _quiet() -> bool:
    return not _logger.isEnabledFor(logging.WARNING)


def _columns() -> tuple[ProgressColumn, ...]:
    title = TextColumn("{task.description}", markup=False)
    return title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


def _speed_text(speed: float, unit: str, left: int | None) -> str:
    """Return the speed of a loop and the time that it needs for the rest."""
    text = f"({speed:.{0 if speed >= 10 else 1}f} {unit}/s"
    return f"{text})" if left is None else f"{text}, {timedelta(seconds=round(left / speed))} left)"


class _SpeedColumn(ProgressColumn):
    """The speed of a bar."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(_speed_text(task.speed or 0, self._unit, None))


@contextmanager
def progress(
    title: str, total: int | None, unit: str = "", done: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error while the block runs.

    Where standard error is not a terminal, a line every 10 s tells how many steps are done; with -q
    there is none.

    Parameters
    ----------
    title : str
        What is done.
    total : int or None
        Number of steps, if known.
    unit : str
        What a step is, to show how many there are a second, and the time left. Default: not shown.
    done : int
        Number of steps that were done before.

    Yields
    ------
    callable
        Takes the number of steps done since the last call.
    """
    if _quiet():
        yield lambda steps: None
        return
    if not stderr.is_terminal:
        tell = _now_and_then(title, unit, done)

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            tell(done, total, "")

        yield advance
        return
    speed_column = [_SpeedColumn(unit)] if unit else []
    with Progress(*_columns(), *speed_column, console=stderr, transient=True) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def step_progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar over numbered steps on standard error, with a text that changes.

    Where standard error is not a terminal, a line every 10 s shows the same; with -q there is none.

    Yields
    ------
    callable
        Takes the step, the number of steps and the text.
    """
    if _quiet():
        yield lambda step, steps, text: None
        return
    if not stderr.is_terminal:
        yield _now_and_then(title)
        return
    text = TextColumn("{task.fields[text]}", markup=False)
    with Progress(*_columns(), text, console=stderr, transient=True) as bar:
        task = bar.add_task(title, total=None, text="")
        yield lambda step, steps, text: bar.update(task, completed=step, total=steps, text=text)


def _now_and_then(
    title: str, unit: str = "", first: int = 0
) -> Callable[[int, int | None, str], None]:
    """Return what prints the steps done, their number and a text, at most every 10 s."""
    said = began = time.monotonic()

    def tell(done: int, total: int | None, text: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _PROGRESS_S:
            said = now
            if unit:
                text = _speed_text((done - first) / (now - began), unit, total and total - done)
            count = f"{done}" if total is None else f"{done} of {total}"
            stderr.print(Text(f"{title}: {count} {text}".rstrip()), soft_wrap=True)

    return tell
