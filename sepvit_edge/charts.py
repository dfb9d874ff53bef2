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
