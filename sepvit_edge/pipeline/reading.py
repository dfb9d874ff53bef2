"""Images that are decoded by several threads while something else works on those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from ..machine import usable_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def read_ahead(
    items: Sequence[_Item],
    read: Callable[[_Item], _Result],
    size: int,
    readers: int | None = None,
) -> Iterator[list[_Result]]:
    """Read items by threads; those in memory are a few times `size` and the number of threads.

    Parameters
    ----------
    items : sequence
        What to read.
    read : callable
        Reads one item, in any thread.
    size : int
        Number of items in a piece.
    readers : int, optional
        Number of threads. Default: the number of cores that this process may use.

    Yields
    ------
    list
        What `read` returned, in the order of the items, a piece at a time.

    Examples
    --------
    >>> list(read_ahead("abcde", str.upper, 2))
    [['A', 'B'], ['C', 'D'], ['E']]
    """
    count = readers or len(usable_cores())
    pieces = (items[start : start + size] for start in range(0, len(items), size))
    waiting: deque[Future[list[_Result]]] = deque()

    def read_piece(piece: Sequence[_Item]) -> list[_Result]:
        return [read(item) for item in piece]

    with ThreadPoolExecutor(count) as pool:
        try:
            for piece in islice(pieces, count + 1):
                waiting.append(pool.submit(read_piece, piece))
            while waiting:
                done = waiting.popleft().result()
                for piece in islice(pieces, 1):
                    waiting.append(pool.submit(read_piece, piece))
                yield done
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
