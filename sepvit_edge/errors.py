"""Errors for users: one sentence that says what to do, and an exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SepViTError(Exception):
    """Wrong usage or bad input; a command prints the sentence and exits with status 2."""

    exit_status = 2


class CheckFailed(SepViTError):
    """A failed check; a command prints the sentence and exits with status 1."""

    exit_status = 1


class Interrupted(SepViTError):
    """A run that the user stopped; a command prints the sentence and exits with status 130."""

    exit_status = 130


def reason_of(error: Exception) -> str:
    """Return the first line of a library's error, or the name of its class if it has no text.

    Examples
    --------
    >>> reason_of(ValueError("bad magic")), reason_of(IndexError())
    ('bad magic', 'IndexError')
    """
    return str(error).partition("\n")[0] or type(error).__name__


def unknown_name(kind: str, name: str, known: Iterable[str]) -> SepViTError:
    """Return the error for an unknown name, with the closest known one.

    Parameters
    ----------
    kind : str
        Kind of the name, for example ``"target"``.
    name : str
        The unknown name.
    known : iterable of str
        The known names.

    Returns
    -------
    SepViTError
        The caller raises it.

    Examples
    --------
    >>> print(unknown_name("target", "openvin", ["onnxruntime", "openvino"]))
    unknown target 'openvin'; did you mean 'openvino'? (known: onnxruntime, openvino)
    """
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return SepViTError(f"unknown {kind} {name!r}{meant} (known: {', '.join(names)})")
