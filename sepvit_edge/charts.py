"""Charts as PNG files, drawn with matplotlib; an optional dependency."""

from __future__ import annotations

from typing import Any

from .errors import SepViTError


def load_pyplot() -> Any:
    """Import `matplotlib.pyplot` without a display.

    Call it before long work whose result is drawn.

    Raises
    ------
    SepViTError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise SepViTError(
            "charts are drawn with matplotlib: pip install 'sepvit-edge[charts]'"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def picture_text(text: str, longest: int = 32) -> str:
    r"""Return a name as one line that any picture can hold.

    What cannot be printed (line breaks, control characters, broken Unicode) is written as its
    escape, and a name that is too long is cut.

    Examples
    --------
    >>> picture_text("tin\ncan")
    'tin\\ncan'
    >>> picture_text("corrugated cardboard", longest=12)
    'corrugated …'
    """
    line = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
