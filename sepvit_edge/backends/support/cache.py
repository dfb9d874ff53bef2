"""Results of slow toolchains, kept by content in the user's cache folder.

Some compilers for NPUs take minutes, and some emulations seconds per image. Their results depend on
their inputs alone, so they are kept under the SHA-256 of all inputs: a second export of the same
model takes them from there. The folder can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from ...files import cache_folder, file_sha256

# In bytes; above it the results that were not used for longest are removed.
LIMIT = 4 << 30
_INDEX = "index.json"  # name and digest of each file of a result
_PARTIAL, _ABANDONED_S = ".partial-", 3600.0
_fresh: ContextVar[bool] = ContextVar("fresh", default=False)
_verified: ContextVar[Path | None] = ContextVar("verified", default=None)


@contextmanager
def fresh(package: Path | None = None) -> Iterator[None]:
    """Bypass the cache while the block runs (used to verify `package`)."""
    tokens = _fresh.set(True), _verified.set(package)
    try:
        yield
    finally:
        _fresh.reset(tokens[0])
        _verified.reset(tokens[1])


def verified_package() -> Path | None:
    """Return the package that is being verified, for tools whose output varies."""
    return _verified.get()


def cached(folder: Path, make: Callable[[Path], None], key: Mapping[str, object]) -> None:
    """Put a tool's files into a folder: cached ones, or else those that `make` writes.

    Parameters
    ----------
    folder : Path
        Existing folder; receives the files under the names that `make` gives them.
    make : callable
        Writes the files, without subfolders, into the empty folder that it is given. Its errors are
        passed on, and nothing is cached.
    key : mapping
        Everything that the files depend on: the tool and its version, its options, its inputs.
        Values are JSON, bytes, arrays, or paths, which stand for the content of a file.

    Notes
    -----
    A result appears in the cache by one rename, so it is complete or absent; a damaged one is made
    again. If nothing can be cached, for example on a full disk, the result is made all the same.
    """
    kept = cache_folder() / _digest(key)
    if not _fresh.get() and _take(kept, folder):
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch)
        make(made)
        _keep(made, kept)
        for file in made.iterdir():
            os.replace(file, folder / file.name)


def cached_arrays(
    make: Callable[[], list[np.ndarray]], key: Mapping[str, object]
) -> list[np.ndarray]:
    """Return cached arrays, or else those that `make` returns; see `cached`."""

    def write(folder: Path) -> None:
        for i, array in enumerate(make()):
            buffer = io.BytesIO()
            np.save(buffer, array)  # to a file it hides the reason of a failure, as a full disk
            (folder / f"{i}.npy").write_bytes(buffer.getbuffer())

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "arrays"
        folder.mkdir()
        cached(folder, write, key)
        files = sorted(folder.iterdir(), key=lambda file: int(file.stem))
        return [np.load(file) for file in files]


def _digest(key: Mapping[str, object]) -> str:
    def stand_in(value: object) -> object:
        if isinstance(value, np.ndarray):
            data = np.ascontiguousarray(value)
            content = hashlib.sha256(data.tobytes()).hexdigest()
            return {"array": [str(data.dtype), data.shape], "sha256": content}
        if isinstance(value, bytes):
            return {"sha256": hashlib.sha256(value).hexdigest()}
        if isinstance(value, Path):
            return {"sha256": file_sha256(value)}
        raise TypeError(f"a {type(value).__name__} cannot be part of a key")

    text = json.dumps(dict(key), sort_keys=True, default=stand_in)
    return hashlib.sha256(text.encode()).hexdigest()


def _take(kept: Path, folder: Path) -> bool:
    """Copy a cached result, if it is complete; return whether it was."""
    try:
        index = json.loads((kept / _INDEX).read_text(encoding="utf-8"))
        for name, digest in index.items():
            shutil.copyfile(kept / name, folder / name)
            if file_sha256(folder / name) != digest:
                raise OSError
        os.utime(kept / _INDEX)
    except (OSError, ValueError):
        return False
    return True


def _keep(made: Path, kept: Path) -> None:
    """Copy a result into the cache; errors of the file system are ignored."""
    partial = None
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=kept.parent, prefix=_PARTIAL))
        index = {}
        for file in sorted(made.iterdir()):
            shutil.copyfile(file, partial / file.name)
            index[file.name] = file_sha256(file)
        (partial / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        if kept.exists():  # damaged, or made again
            shutil.rmtree(kept)
        os.rename(partial, kept)
        _prune(kept.parent)
    except OSError:
        pass
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _prune(root: Path) -> None:
    """Remove the results that were not used for longest, until the rest is below `LIMIT`."""
    indexes = sorted(root.glob(f"*/{_INDEX}"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for index in indexes:
        total += sum(file.stat().st_size for file in index.parent.iterdir())
        if total > LIMIT:
            shutil.rmtree(index.parent, ignore_errors=True)
    for partial in root.glob(f"{_PARTIAL}*"):  # of killed processes
        if time.time() - partial.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(partial, ignore_errors=True)
