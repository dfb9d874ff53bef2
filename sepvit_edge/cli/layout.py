"""Widths of columns in a terminal, so that a line ends between words and never inside one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len


def column_widths(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, border: int = 0, gap: int = 2
) -> list[int] | None:
    """Share the width of a terminal among columns.

    Every column gets its longest word at least. What is left goes to the columns that need more,
    to the narrowest first.

    Parameters
    ----------
    header, rows : sequence
        Cells, as text.
    width : int
        Characters in a line.
    border, gap : int
        Characters beside all columns together, and between two of them.

    Returns
    -------
    list of int or None
        Characters within each column; None if even the words do not fit side by side.

    Examples
    --------
    >>> column_widths(["a", "b"], [["one two", "three"]], 80)
    [7, 5]
    >>> column_widths(["a", "b"], [["one two", "three"]], 12)
    [5, 5]
    >>> column_widths(["a", "b"], [["one two", "three"]], 9) is None
    True
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(_longest(cell.split()) for cell in cells) for cells in columns]
    wanted = [max(_longest(cell.split("\n")) for cell in cells) for cells in columns]
    left = width - sum(widths) - gap * (len(columns) - 1) - border
    if left < 0:
        return None
    for place in sorted(range(len(columns)), key=lambda i: wanted[i] - widths[i]):
        more = min(wanted[place] - widths[place], left)
        widths[place] += more
        left -= more
    return widths


def _longest(texts: Sequence[str]) -> int:
    return max((cell_len(text) for text in texts), default=0)
