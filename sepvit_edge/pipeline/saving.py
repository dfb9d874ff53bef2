"""A file of results that grows row by row, and is continued where a killed run left it."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import SepViTError
from ..files import check_output_file, replacing_file

SUFFIXES = (".csv", ".parquet")
_ROWS = 10_000  # of a group in a Parquet file


def check_save(path: Path) -> None:
    """Refuse a file of results that cannot be written; call it before the work.

    Raises
    ------
    SepViTError
        If its suffix is neither .csv nor .parquet, its library is missing, or its folder is.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SepViTError(f"--save {path}: the file's name must end with {' or '.join(SUFFIXES)}")
    check_output_file(path, "--save", suffix)
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise SepViTError(
            "Parquet needs pyarrow; run: pip install 'sepvit-edge[parquet]', or save as .csv"
        )


class GrowingTable:
    """Rows that are kept on disk as they come; see `growing_table`.

    Attributes
    ----------
    kept : int
        Number of rows that an earlier run has left.
    """

    def __init__(self, partial: Path, facts: str, columns: Sequence[str], keys: Sequence[str]):
        self._partial, self._facts, self._columns = partial, facts, columns
        rows = list(islice(self._complete(keys), len(keys)))
        self.kept = len(rows)
        with replacing_file(partial) as fresh, _opened(fresh, "w") as file:
            file.write(f"{facts}\n")
            csv.writer(file, lineterminator="\n").writerows([columns, *rows])
        self._file = _opened(partial, "a")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def _complete(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Yield the whole rows of an earlier run on the same inputs, as far as they are these."""
        if not self._partial.is_file():
            return
        with _opened(self._partial, "r") as file:
            text = file.read()
        # A row without its end was cut off, and so may be a number in it.
        facts, _, table = text[: text.rfind("\n") + 1].partition("\n")
        if facts != self._facts:
            return
        reader = csv.reader(io.StringIO(table, newline=""))
        with suppress(csv.Error):  # a power cut may leave zeros
            if next(reader, None) != list(self._columns):
                return
            for key, row in zip(keys, reader, strict=False):
                if len(row) != len(self._columns) or row[0] != key:
                    return
                yield row

    def add(self, row: Sequence[object]) -> None:
        """Keep a row; it is on disk when this returns, as far as the system is."""
        self._writer.writerow(row)
        self._file.flush()

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows that are kept so far."""
        with _opened(self._partial, "r") as file:
            file.readline()
            yield from islice(csv.reader(file), 1, None)

    def close(self) -> None:
        """Close the file; the rows stay."""
        self._file.close()


@contextmanager
def growing_table(
    path: Path, facts: dict[str, Any], columns: Sequence[str], keys: Sequence[str]
) -> Iterator[GrowingTable]:
    """Write a table as .csv or .parquet; it appears at `path` when the block succeeds.

    Until then its rows are in a hidden file beside it. The next run with the same facts, columns
    and keys continues there, and its table has the same bytes as one that was not interrupted.

    Parameters
    ----------
    path : Path
        The file; one that exists is replaced at the end.
    facts : dict
        What the rows depend on beside their keys.
    columns : sequence of str
        Names of the columns.
    keys : sequence of str
        The first cell of each row, in order.

    Yields
    ------
    GrowingTable
        With the rows of an earlier run; add those that are missing, in order.

    Raises
    ------
    SepViTError
        If another process is writing the same file.
    """
    partial = path.with_name(f".{path.name}.partial")
    with only_writer(path, partial):
        table = GrowingTable(partial, json.dumps(facts, sort_keys=True), columns, keys)
        try:
            yield table
        finally:
            table.close()
        with replacing_file(path) as finished:
            _finish(table, partial, columns, finished)
        partial.unlink()


@contextmanager
def only_writer(path: Path, partial: Path) -> Iterator[None]:
    """Keep other processes out of a file that grows, while the block runs.

    Parameters
    ----------
    path : Path
        The result, for the sentence.
    partial : Path
        The file that grows; its lock is beside it.

    Raises
    ------
    SepViTError
        If another process has it.
    """
    lock = FileLock(partial.with_name(f"{partial.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SepViTError(f"another process is writing {path}; wait until it has ended") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _finish(table: GrowingTable, partial: Path, columns: Sequence[str], finished: Path) -> None:
    """Turn the rows into the file that was asked for."""
    if finished.suffix.lower() == ".csv":
        with partial.open("rb") as source, finished.open("wb") as target:
            source.readline()
            shutil.copyfileobj(source, target)
        return
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    kinds = {name: _kind(name) for name in columns}
    types = {str: pa.string(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    rows = table.rows()
    with ParquetWriter(finished, schema) as writer:
        while group := list(islice(rows, _ROWS)):
            cells = {
                name: [_cell(row[i], kind) for row in group]
                for i, (name, kind) in enumerate(kinds.items())
            }
            writer.write_table(pa.table(cells, schema=schema))


def _kind(column: str) -> type:
    return float if column.startswith("probability") else str


def _cell(text: str, kind: type) -> object:
    if kind is float:
        return float(text) if text else None
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _opened(path: Path, mode: str) -> Any:
    # Names of files may be no text: their bytes are kept.
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline="")
