"""Resident memory of this process."""

from __future__ import annotations

import os
import re
import sys

from ... import machine


def resident_mb() -> float | None:
    """Return the resident memory now, in 10^6 bytes; None where the system does not tell."""
    pages = (machine.read_text("/proc/self/statm") or "").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if len(pages) > 1 else None


def peak_mb() -> tuple:
    """Return the highest resident memory in 10^6 bytes, and where the number comes from."""
    found = re.search(r"VmHWM:\s+(\d+)", machine.read_text("/proc/self/status") or "")
    if found:
        return int(found.group(1)) * 1024 / 1e6, "VmHWM"
    try:
        import resource
    except ImportError:  # Windows
        return None, "none"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, "ru_maxrss"
