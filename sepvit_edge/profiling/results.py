"""Kept results: a document a file, named after the measurement and its date; the table of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ..errors import SepViTError, unknown_name
from .document import Profile, read_profile

# Between a measurement's name and its date; before the number of a further file of one date.
_AT, _AGAIN = "@", "~"
_FILE = re.compile(rf"(?P<name>.+?)({_AT}(?P<date>[\dT-]+Z))?({_AGAIN}\d+)?\.json")


@dataclass(frozen=True)
class Kept:
    """A file in a folder of results.

    Attributes
    ----------
    path : Path
        The file.
    name : str
        Name of the measurement (`name_of`).
    date : str
        ``"2026-11-20T081500Z"``; empty for a file from before dates were kept.
    """

    path: Path
    name: str
    date: str

    @property
    def settings(self) -> str:
        """The name without the package's digest and the runtime's version."""
        return self.name.rsplit("_", 2)[0]


def name_of(profile: Profile) -> str:
    """Return a measurement's name: device, package, threads, digest, runtime version."""
    package, runtime = profile.package, profile.runtime
    words = [
        profile.device.name,
        f"{package.variant}-{package.image_size}",
        f"{package.target}-{package.precision}",
        f"{runtime.threads or 'default'}t",
        package.digest[:8],
        runtime.version,
    ]
    return re.sub(r"[^\w.+-]", "_", "_".join(words))


def check_folder(folder: Path) -> None:
    """Make a folder of results, before anything is measured for it.

    Raises
    ------
    SepViTError
        If it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SepViTError(f"{folder} is not a folder; choose another one by --results") from None
    if not os.access(folder, os.W_OK):
        raise SepViTError(f"{folder} cannot be written; choose another one by --results")


def save_result(profile: Profile, folder: Path) -> Path:
    """Write a document beside the older results; none of them is replaced.

    Raises
    ------
    SepViTError
        If the device is emulated: its times mean nothing.
    """
    if profile.emulated:
        raise SepViTError("times of an emulated device are not kept; leave --save out")
    check_folder(folder)
    stem = name_of(profile)
    if profile.date is not None:
        stem += f"{_AT}{profile.date:%Y-%m-%dT%H%M%SZ}"
    partial = folder / f".{stem}.{os.getpid()}"
    try:
        partial.write_text(profile.model_dump_json() + "\n", encoding="utf-8")
        return _put(partial, folder, stem)
    finally:
        partial.unlink(missing_ok=True)


def _put(partial: Path, folder: Path, stem: str) -> Path:
    """Give a complete file the first name that is free; another process may take it meanwhile."""
    number = 1
    while True:
        path = folder / f"{stem}{f'{_AGAIN}{number}' if number > 1 else ''}.json"
        try:
            os.link(partial, path)  # unlike a rename, it replaces nothing
            return path
        except FileExistsError:
            number += 1
        except OSError:  # a file system without hard links
            if not path.exists():
                return partial.replace(path)
            number += 1


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
    except (ValueError, IsADirectoryError, RecursionError) as error:
        raise SepViTError(f"{path} is not a profile document: {error}") from None
    documents = content if isinstance(content, list) else [content]
    return [read_profile(document, str(path)) for document in documents]


def kept_results(folder: Path) -> list[Kept]:
    """Return the files of a folder, by name and date; those without a date come first."""
    found = []
    for path in folder.glob("*.json"):
        match = _FILE.fullmatch(path.name)
        if match is not None:
            found.append(Kept(path, match["name"], match["date"] or ""))
    return sorted(found, key=lambda kept: (kept.name, kept.date, kept.path.name))


def find_results(reference: str, folder: Path) -> list[Profile]:
    """Read the results that a reference names.

    Parameters
    ----------
    reference : str
        A file; or a measurement's name or the first words of it, for the latest of each setting
        (``local_lite-224_openvino-int8`` has one for each number of threads); or either with a day
        behind, ``NAME@2026-11-20``, for the latest of that day or before.
    folder : Path
        Folder of results.

    Raises
    ------
    SepViTError
        If there is none, or the day is not a date.
    """
    path = Path(reference)
    kept = kept_results(folder)
    if exact := [one for one in kept if one.path.stem == reference and one.date]:
        return [profile for one in exact for profile in load_results(one.path)]
    name, _, day = reference.partition(_AT)
    if path.exists() or (path.suffix == ".json" and not day) or path.name != reference:
        return load_results(path)
    found = [one for one in kept if f"{one.name}_".startswith(f"{name}_")]
    if not found:
        known = sorted({one.settings for one in kept})
        if not known:
            raise SepViTError(f"there are no results in {folder}; measure with --save first")
        raise unknown_name("result", name, known)
    until = found
    if day:
        try:
            last = date.fromisoformat(day).isoformat()
        except ValueError:
            raise SepViTError(
                f"{day!r} is not a day; write it as year, month and day: {name}@2026-11-20"
            ) from None
        until = [one for one in found if one.date[:10] <= last]
    if not until:
        first = min(one.date for one in found)
        raise SepViTError(f"there is no result {name} of {day} or before; the first is of {first}")
    return [profile for one in _latest(until) for profile in load_results(one.path)]


def _latest(results: Sequence[Kept]) -> list[Kept]:
    """Return, for each setting, all files of the latest date: repeated measurements have one."""
    dates: dict[str, str] = {}
    for one in results:
        dates[one.settings] = max(one.date, dates.get(one.settings, ""))
    return [one for one in results if one.date == dates[one.settings]]


def history(profile: Profile, folder: Path) -> list[Profile]:
    """Return the results with the settings of a measurement that have a date, by date."""
    settings = Kept(folder, name_of(profile), "").settings
    files = [one for one in kept_results(folder) if one.settings == settings and one.date]
    found = [each for one in files for each in load_results(one.path)]
    dated = [(each.date, each) for each in found if each.date is not None and each.latency]
    return [each for _, each in sorted(dated, key=lambda pair: pair[0])]


def load_folder(folder: Path) -> list[Profile]:
    """Read the latest result of every name in a folder; incomplete ones are left out.

    Raises
    ------
    SepViTError
        If there is none.
    """
    latest = {one.name: one for one in kept_results(folder)}
    found = [profile for one in latest.values() for profile in load_results(one.path)]
    found = [profile for profile in found if profile.complete and not profile.emulated]
    if not found:
        raise SepViTError(f"there are no results in {folder}; measure with --save first")
    return found


def markdown_table(profiles: Sequence[Profile]) -> str:
    """Write results as a table in Markdown."""
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
