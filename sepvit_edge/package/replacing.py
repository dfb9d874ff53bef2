"""Writing a folder so that it appears whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SepViTError
from .manifest import MANIFEST

_FULL_BELOW = 1 << 16  # bytes


@contextmanager
def replacing(destination: Path, force: bool) -> Iterator[Path]:
    """Fill a folder beside `destination`, and move it there when the block succeeds.

    An interrupted block leaves nothing at `destination`. Leftovers of a killed process are removed
    by the next one.

    Parameters
    ----------
    destination : Path
        Where the folder goes.
    force : bool
        Whether to replace a package that is there.

    Yields
    ------
    Path
        The folder to fill.

    Raises
    ------
    SepViTError
        If `destination` exists and `force` is false, or cannot be written.
    """
    destination = destination.absolute()
    check_destination(destination, force)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(destination)
    partial = destination.parent / f".{destination.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        previous = destination.parent / f".{destination.name}.previous-{os.getpid()}"
        if destination.exists():
            os.rename(destination, previous)
        os.rename(partial, destination)
        shutil.rmtree(previous, ignore_errors=True)
    except Exception as error:
        # Every runtime reports a full disk in its own words.
        if partial.exists() and shutil.disk_usage(partial).free < _FULL_BELOW:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination)) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_destination(destination: Path, force: bool) -> None:
    """Refuse an existing destination without `force`, and anything but a package with it.

    Raises
    ------
    SepViTError
        If the destination exists and must not be replaced.
    """
    if not destination.exists() and not destination.is_symlink():
        return
    if not force:
        raise SepViTError(f"{destination} exists; give --force to replace it, or another --output")
    if not destination.is_dir() or destination.is_symlink():
        raise SepViTError(f"{destination} is not a folder; give another --output")
    if any(destination.iterdir()) and not (destination / MANIFEST).is_file():
        raise SepViTError(
            f"{destination} is not a SepViT-Edge package; refusing to overwrite it, give another "
            "--output"
        )


def _remove_leftovers(destination: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(destination.name)}\.(partial|previous)-(\d+)")
    for path in destination.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or _alive(int(match[2])):
            continue
        if match[1] == "previous" and not destination.exists():
            os.rename(path, destination)  # killed between the two renames
        else:
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError as error:
        return error.errno == errno.EPERM
    return True
