"""Files on disk; the standard library only."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import SepViTError


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the user's cache folder: ``$XDG_CACHE_HOME/sepvit-edge``, or ``~/.cache/sepvit-edge``.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG specification asks.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "sepvit-edge"


def check_output_file(path: Path, option: str, suffix: str) -> None:
    """Refuse a file that cannot be written; call it before the work whose result the file takes.

    Parameters
    ----------
    path : Path
        The file. One that exists is replaced later, and is left alone here.
    option : str
        Name of the option that gives the path, for the sentence.
    suffix : str
        What its name must end with, for example ``".png"``.

    Raises
    ------
    SepViTError
        If the path has another suffix, is a folder or a device, or its folder is missing or
        cannot be written.
    """
    folder = path.absolute().parent
    try:
        if path.is_dir():
            raise SepViTError(f"{option} {path} is a folder; name a file in it")
        if path.suffix.lower() != suffix:
            raise SepViTError(f"{option} {path}: the file's name must end with {suffix}")
        if path.exists() and not path.is_file():
            raise SepViTError(f"{option} {path} is not a regular file; name another one")
        if not folder.is_dir():
            raise SepViTError(f"{option} {path}: the folder {folder} does not exist; create it")
        with _partial_file(path):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SepViTError(
            f"{option} {path} cannot be written: {reason}; name another file"
        ) from None


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Write a file beside `path`, and move it there when the block succeeds.

    An error, a full disk or a killed process leaves what was at `path` as it was; a power cut
    leaves that or the new file.

    Yields
    ------
    Path
        An empty file to write, with the suffix of `path`.
    """
    target = path.resolve()  # the file that a link points to is replaced, not the link
    with _partial_file(target) as partial:
        yield partial
        partial.chmod(0o644)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)


@contextmanager
def _partial_file(path: Path) -> Iterator[Path]:
    """Yield an empty file in a scratch folder beside `path`, both of which go with the block."""
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".partial-") as scratch:
        partial = Path(scratch) / path.name
        partial.touch()
        yield partial
