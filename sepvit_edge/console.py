"""What the commands share: how they start, fail, show progress and print."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .errors import SepViTError

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
        app.command()(guarded)
        app()

    return run


_OS_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space and run it again",
    errno.EACCES: "permission denied; choose another folder",
    errno.EPERM: "permission denied; choose another folder",
    errno.EROFS: "the folder is read-only; choose another one",
}


def _fail(sentence: str) -> None:
    stderr.print(f"[bold red]error:[/] {_escape(sentence)}", soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


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
