"""Images that are decoded by several threads while a runtime works on those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol, TypeVar

from ..machine import usable_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Work(Protocol):
    """What is done with each image of many; it can be pickled, to be done in other processes.

    Attributes
    ----------
    parallel : bool
        Whether several threads may read at the same time.
    """

    @property
    def parallel(self) -> bool: ...  # noqa: D102

    def read(self, item: Any) -> Any:
        """Read one image."""
        ...

    def run(self, piece: list[Any]) -> Any:
        """Return the result of some images that were read, one piece at a time."""
        ...


# Does the work on pieces of the items, and yields the results in order.
Engine = Callable[[Sequence[Any], Work, int], Iterator[Any]]


def run_here(
    items: Sequence[Any], work: Work, size: int, readers: int | None = None
) -> Iterator[Any]:
    """Do work on pieces of the items in this process: an engine.

    Parameters
    ----------
    items : sequence
        Images, in any form that the work reads.
    work : Work
        What to do.
    size : int
        Number of items in a piece.
    readers : int, optional
        Threads that read. Default: the number of cores that this process may use.

    Yields
    ------
    object
        What `work.run` returned for each piece, in order.
    """
    for piece in read_ahead(items, work.read, size, readers if work.parallel else 1):
        yield work.run(piece)


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
