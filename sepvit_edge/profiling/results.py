"""Kept results: one document per file, named after the measurement, and the table of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import SepViTError
from .document import Profile, read_profile


def name_of(profile: Profile) -> str:
    """Return a result's file name: device, package with digest, threads, runtime version."""
    package, runtime = profile.package, profile.runtime
    words = [
        profile.device.name,
        f"{package.variant}-{package.image_size}",
        f"{package.target}-{package.precision}",
        f"{runtime.threads or 'default'}t",
        package.digest[:8],
        runtime.version,
    ]
    return re.sub(r"[^\w.+-]", "_", "_".join(words)) + ".json"


def save_result(profile: Profile, folder: Path) -> Path:
    """Write a document; an older result of the same name is replaced.

    Raises
    ------
    SepViTError
        If the device is emulated: its times mean nothing.
    """
    if profile.emulated:
        raise SepViTError("times of an emulated device are not kept; leave --save out")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name_of(profile)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(profile.model_dump_json() + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def load_results(path: Path) -> list[Profile]:
    """Read a file with one document, or with a list of them as ``--json`` prints it.

    Raises
    ------
    SepViTError
        If it is missing, or not a profile document.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SepViTError(f"there is no result {path}") from None
    except (ValueError, IsADirectoryError) as error:
        raise SepViTError(f"{path} is not a profile document: {error}") from None
    documents = content if isinstance(content, list) else [content]
    return [read_profile(document, str(path)) for document in documents]


def load_folder(folder: Path) -> list[Profile]:
    """Read every result of a folder, in order of name; incomplete ones are left out.

    Raises
    ------
    SepViTError
        If there is none.
    """
    found = [profile for path in sorted(folder.glob("*.json")) for profile in load_results(path)]
    found = [profile for profile in found if profile.complete and not profile.emulated]
    if not found:
        raise SepViTError(f"there are no results in {folder}; measure with --save first")
    return found


def markdown_table(profiles: Sequence[Profile]) -> str:
    """Write results as the table of README.md."""
    header = [
        *("device", "model", "runtime", "precision", "threads"),
        *("p50 ms", "p90 ms", "p99 ms", "cold start ms", "peak MB", "model MB"),
    ]
    rows = []
    for profile in profiles:
        latency, package = profile.latency, profile.package
        if latency is None or profile.emulated:
            continue
        rows.append(
            [
                profile.device.name,
                f"{package.variant} {package.image_size}",
                f"{profile.runtime.name} {profile.runtime.version}",
                package.precision,
                str(profile.runtime.threads or "default"),
                f"{latency.p50_ms:.2f}",
                f"{latency.p90_ms:.2f}",
                f"{latency.p99_ms:.2f}",
                f"{profile.cold_start.total_ms:.0f}" if profile.cold_start else "-",
                f"{profile.memory.peak_mb:.0f}"
                if profile.memory and profile.memory.peak_mb
                else "-",
                f"{package.model_mb:.2f}",
            ]
        )
    lines = [header, ["-"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
