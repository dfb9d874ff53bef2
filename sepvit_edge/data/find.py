"""Finding image files in a folder, and counting what is left out."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from ..errors import SepViTError

# Formats that Pillow only recognises, or reads by another program.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
# Folders that systems and tools make by themselves, in small letters.
_SERVICE_FOLDERS = frozenset(
    {
        *("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler"),
        *("__macosx", "__pycache__", "lost+found", "system volume information", "thumbs"),
    }
)
_SERVICE_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})

DANGLING, MACOS, SPECIAL = "dangling links", "macOS ._ files", "special files"


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the formats that the installed Pillow decodes, in small letters."""
    Image.init()
    return frozenset(
        suffix.lower()
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NOT_DECODED
    )


def is_service(name: str) -> bool:
    """Tell whether a folder's name is one that systems and tools use, or is hidden."""
    return name.startswith(".") or name.lower() in _SERVICE_FOLDERS


@dataclass
class Found:
    """The images in a folder, and the files beside them.

    Attributes
    ----------
    images : list of Path
        Sorted.
    left_out : Counter
        Number of files that are not read, by suffix or by another reason. Hidden files and those
        that systems make do not count.
    """

    images: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def find_images(root: Path, below: bool = True) -> Found:
    """Find the images in a folder and, if `below`, in the folders in it; links are followed.

    Each folder is read once, so a link back to a folder above does no harm.

    Raises
    ------
    SepViTError
        If a folder cannot be read.
    """
    found = Found()
    for folder, names in _walk(root, below):
        for name in names:
            reason = _why_not(folder / name)
            if reason is None:
                found.images.append(folder / name)
            elif reason:
                found.left_out[reason] += 1
    found.images.sort()
    return found


def has_images(root: Path, below: bool = True) -> bool:
    """Tell whether a folder holds an image; with `below`, also in the folders in it."""
    walk = _walk(root, below)
    return any(_why_not(folder / name) is None for folder, names in walk for name in names)


def subfolders(root: Path) -> list[Path]:
    """Return the folders in a folder that are not service folders, sorted."""
    return sorted(root / name for name in _listed(root)[0] if not is_service(name))


def service_folders(root: Path) -> list[Path]:
    """Return the service folders in a folder that are not hidden, sorted."""
    names = _listed(root)[0]
    return sorted(root / name for name in names if is_service(name) and name[0] != ".")


def _walk(root: Path, below: bool) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder once, with the names in it that are not folders."""
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        folders, files = _listed(folder)
        yield folder, files
        if below:
            waiting += [folder / name for name in folders if not is_service(name)]


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders in a folder, and of everything else, sorted."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # Of a link to itself, entry.is_dir() would raise.
                linked = entry.is_symlink()
                is_folder = os.path.isdir(entry.path) if linked else entry.is_dir()
                (folders if is_folder else files).append(entry.name)
    except OSError as error:
        raise SepViTError(f"the folder {folder} cannot be read: {error.strerror}") from None
    return sorted(folders), sorted(files)


def _why_not(path: Path) -> str | None:
    """Return why a file is not read as an image, empty for what nobody misses; None if it is."""
    name, suffix = path.name, path.suffix.lower()
    if name.startswith("._"):
        return MACOS
    if name.startswith(".") or name.lower() in _SERVICE_FILES:
        return ""
    try:
        mode = path.stat().st_mode
    except OSError:
        return DANGLING
    if not stat.S_ISREG(mode):
        return SPECIAL
    if suffix in image_suffixes():
        return None
    return suffix or "without a suffix"
