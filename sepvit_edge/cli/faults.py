"""Faults of the system, as sentences: a full disk, a full memory, Ctrl-C."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Interrupted

_NO_MEMORY = "can't allocate memory"
_OS_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space and run it again",
    errno.EACCES: "permission denied; choose another folder",
    errno.EPERM: "permission denied; choose another folder",
    errno.EROFS: "the folder is read-only; choose another one",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "there is a folder where a file belongs",
    errno.EEXIST: "there is something where a new file or folder belongs",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "a link points to itself",
    errno.EIO: "the disk has failed to read or write",
}


def system_fault(error: Exception) -> str | None:
    """Return a sentence on a fault of the system; None for all other errors."""
    if isinstance(error, OSError):
        if error.errno not in _OS_ERRORS:
            return None
        where = f" ({error.filename})" if error.filename else ""
        return f"{_OS_ERRORS[error.errno]}{where}"
    if isinstance(error, MemoryError) or _NO_MEMORY in str(error):  # torch has no class for it
        return "the memory is full; give a smaller --image-size or --batch, or fewer --workers"
    return None


@contextmanager
def noting_interrupts() -> Iterator[None]:
    """Turn Ctrl-C into `Interrupted`, even if a library turned it into an error of its own.

    OpenVINO's and others' native code catch KeyboardInterrupt while they call back into Python.
    """
    noted: list[int] = []

    def note(number: int, _frame: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    # A shell that runs a command in the background has it ignored: that stays.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except Exception:
        if noted:
            raise Interrupted("interrupted") from None
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
