"""Split images into those to train on and those held out, by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path


def is_held_out(path: Path, share: float, split: str = "") -> bool:
    """Return whether an image file belongs to the held-out share of a data set.

    The bytes of the file decide, not its name or its place: copies of an image stay together, and
    a data set that grows keeps its split.

    Parameters
    ----------
    path : Path
        The file.
    share : float
        Share of the images to hold out, 0..1.
    split : str
        Name of the split. Splits with different names are independent: what one leaves can be
        split again by another.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    digest = hashlib.sha256(split.encode() + path.read_bytes()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
