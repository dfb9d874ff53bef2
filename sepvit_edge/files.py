"""Files on disk; the standard library only."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


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
