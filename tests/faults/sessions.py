"""Sessions that are opened and closed, and images that are run: nothing may grow."""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_TINY = Path(__file__).parents[1] / "vectors" / "package"
_RUNS_A_SESSION = 100


def sessions(count: int, _rng: random.Random) -> Iterator[tuple[str, str]]:
    """Open `20 * count` sessions of the tiny package, each with 100 images."""
    if importlib.util.find_spec("onnxruntime") is None or not Path("/proc/self").is_dir():
        return
    from sepvit_edge.package.session import open_package

    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    size = open_package(_TINY).package.manifest.model.image_size
    pixels = np.zeros((1, size, size, 3), np.uint8)
    before, total = (0, 0, 0), 20 * count
    warm = max(total // 5, 1)
    for i in range(total):
        session = open_package(_TINY, threads=1)
        expected = session.run_pixels(pixels)[0]
        fault = ""
        for _ in range(_RUNS_A_SESSION):
            if not np.array_equal(session.run_pixels(pixels)[0], expected):
                fault = "another result"
        del session
        yield f"a session with {_RUNS_A_SESSION} predictions", fault
        if i == warm:
            before = _facts()
    kilobytes, files, threads = (a - b for a, b in zip(_facts(), before, strict=True))
    grown = files > 0 or threads > 0 or kilobytes > 20_000
    what = f"memory, files and threads after {total:,} sessions"
    yield what, f"{kilobytes} kB, {files} files, {threads} threads more" if grown else ""


def _facts() -> tuple[int, int, int]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024, files, threading.active_count()
