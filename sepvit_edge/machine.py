"""Facts of the machine that this process runs on: its cores, and what the CPU can do.

The on-device runner carries this file (`sepvit_edge.profiling.runner_file`), so it is valid
Python 3.9 and imports the standard library only.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

# Features that decide how fast low precision is, by the CPU's own name, with the name that is used
# everywhere else; and the atomics that some libraries need.
X86_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI (int8)",
    "avx512_vnni": "AVX512-VNNI (int8)",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
}
ARM_FEATURES = {
    "asimdhp": "FP16",
    "asimddp": "dot product (int8)",
    "i8mm": "i8mm (int8)",
    "bf16": "BF16",
    "sve": "SVE",
    "atomics": "LSE atomics",
}


def read_text(path: str | Path) -> str | None:
    """Return the content of a file of /proc or /sys; None where it is missing or not readable."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


def read_number(path: str | Path, factor: float = 1) -> float | None:
    """Return the number in a file of /proc or /sys, times `factor`; None where there is none."""
    text = read_text(path)
    try:
        return None if text is None else float(text) * factor
    except ValueError:
        return None


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processors() -> list[dict[str, str]]:
    """Return the entries of /proc/cpuinfo, one per core; empty on systems without it."""
    entries = []
    for block in (read_text("/proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        entry = {key.strip(): value.strip() for key, value in pairs}
        if "processor" in entry:
            entries.append(entry)
    return entries


def cpu_name() -> str:
    """Return the CPU's model name, or what the system tells instead; empty if it tells nothing."""
    first = next(iter(processors()), {})
    return first.get("model name") or platform.processor()


def cpu_flags() -> list[str]:
    """Return all features that the system lists for the first core, by the CPU's own names."""
    first = next(iter(processors()), {})
    return (first.get("flags") or first.get("Features") or "").split()


def cpu_features() -> dict[str, bool]:
    """Return the features that matter here, by their usual names, and whether this CPU has them.

    Empty where the system does not list them.
    """
    flags = set(cpu_flags())
    is_arm = platform.machine().lower() in ("aarch64", "arm64")
    names = ARM_FEATURES if is_arm else X86_FEATURES
    return {name: flag in flags for flag, name in names.items()} if flags else {}


def present_features() -> list[str]:
    """Return the features of `cpu_features` that this CPU has."""
    return [name for name, has in cpu_features().items() if has]
