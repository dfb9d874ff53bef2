"""Errors that a user can act on: one sentence that says what to do, and an exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SepViTError(Exception):
    """Wrong usage or bad input; a command prints the sentence and exits with status 2."""

    exit_status = 2


class CheckFailed(SepViTError):
    """A check that was asked for did not hold; a command exits with status 1."""

    exit_status = 1


class Interrupted(SepViTError):
    """A long run that the user stopped and can go on with."""

    exit_status = 130


def unknown_name(kind: str, name: str, known: Iterable[str]) -> SepViTError:
    """Say that `name` is no `kind`, what is, and which one was probably meant.

    Parameters
    ----------
    kind : str
        What the name should have been, for example ``"target"``.
    name : str
        What was given.
    known : iterable of str
        The names that exist.

    Returns
    -------
    SepViTError
        To be raised by the caller.
    """
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return SepViTError(f"unknown {kind} {name!r}{meant} (there are: {', '.join(names)})")
