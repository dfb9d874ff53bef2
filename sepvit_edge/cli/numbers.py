"""Numbers that options take as text: lists of them, and lengths of time."""

from __future__ import annotations

import re

from ..errors import SepViTError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def whole_numbers(text: str, option: str, example: str, most: int = 10**9) -> tuple[int, ...]:
    """Read numbers from 1 with commas between them; none from an empty text.

    Parameters
    ----------
    text : str
        The option's value.
    option, example : str
        Name of the option and a value of it, for the error.
    most : int
        The largest number.

    Raises
    ------
    SepViTError
        If a piece is not such a number.

    Examples
    --------
    >>> whole_numbers("1,2,4", "--threads", "1,2")
    (1, 2, 4)
    """
    pieces = [piece.strip() for piece in text.split(",")] if text else []
    if not all(re.fullmatch("[1-9][0-9]*", piece) for piece in pieces):
        raise SepViTError(f"{option} takes numbers from 1, for example {example}, not {text!r}")
    if large := next((piece for piece in pieces if len(piece) > 9 or int(piece) > most), ""):
        raise SepViTError(f"{option} {large} is too large; give {most:,} at most")
    return tuple(int(piece) for piece in pieces)


def words(text: str) -> list[str]:
    """Read words with commas between them; none from an empty text.

    Examples
    --------
    >>> words("fp32, int8")
    ['fp32', 'int8']
    """
    return [word for piece in text.split(",") if (word := piece.strip())]


def seconds_of(text: str) -> float:
    """Read a length of time in seconds; 0 from an empty text.

    Raises
    ------
    SepViTError
        If the text is not a length of time.

    Examples
    --------
    >>> [seconds_of(text) for text in ("90", "90s", "30m", "1.5h", "")]
    [90.0, 90.0, 1800.0, 5400.0, 0.0]
    """
    if not text:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise SepViTError(f"{text!r} is not a length of time; write for example 90s, 30m or 1h")
    return float(match[1]) * _SECONDS[match[2]]
