"""Folders of images, with or without a folder per class."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import SepViTError
from .classes import match_folders, named_after, shortened, shown
from .find import (
    find_images,
    has_images,
    image_suffixes,
    service_folders,
    subfolders,
)
from .preprocess import load_image
from .sample import Sample

# Each says it once, and commands show it as a warning.
_log = logging.getLogger(__name__)

_LOOSE = "loose images"  # beside the class folders
# Names of folders and files -> split.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


class ImageFolder:
    """A folder of images, or of one folder per class (ImageNet's layout); streamed.

    Parameters
    ----------
    root : Path
        The folder. Links are followed; folders without images, and those that systems and tools
        make, are not classes.
    labels : sequence of str, optional
        The model's class names, in the order of its outputs (`sepvit_edge.data.classes`). Default:
        the images have no labels.
    pairs : mapping, optional
        Label of each folder (`sepvit_edge.data.classes.read_pairs`).

    Attributes
    ----------
    name : str
        Name of the folder.
    class_rule : str or None
        How folders were matched to classes; None of images without labels.
    left_out : dict
        Reason -> number of the files that are not read.

    Raises
    ------
    SepViTError
        If the folder is missing, holds no image, or its folders are not the model's classes.
    """

    parallel = True

    def __init__(
        self,
        root: Path,
        labels: Sequence[str] | None = None,
        pairs: Mapping[str, str] | None = None,
    ) -> None:
        self.name = _name_of(root)
        self.class_rule: str | None = None
        self._files: list[tuple[Path, int | None]] = []
        left_out: Counter[str] = Counter()
        found = {folder: find_images(folder) for folder in _class_folders(root, labels or ())}
        empty = [folder.name for folder, inside in found.items() if not inside.images]
        classes = self._classes(root, [f for f in found if found[f].images], labels, pairs)
        for folder, index in classes.items():
            self._files += [(path, index) for path in found[folder].images]
        for inside in found.values():
            left_out += inside.left_out
        beside = find_images(root, below=False)
        left_out += beside.left_out
        if self._files:
            left_out[_LOOSE] += len(beside.images)
        else:
            self._files = [(path, None) for path in beside.images]
        self.left_out = {reason: n for reason, n in sorted(left_out.items()) if n}
        if not self._files:
            raise _no_image(root, self.left_out)
        _tell_left_out(self.name, self.left_out, empty, service_folders(root))

    def _classes(
        self,
        root: Path,
        folders: list[Path],
        labels: Sequence[str] | None,
        pairs: Mapping[str, str] | None,
    ) -> dict[Path, int | None]:
        if labels is not None and pairs is None:
            _refuse_other_level(root, folders, labels)
        if labels is None or not folders:
            return dict.fromkeys(folders)
        names = [folder.name for folder in folders]
        matching = match_folders(names, labels, pairs, self.name)
        self.class_rule = matching.rule
        if matching.note:
            _log.warning(matching.note)
        return dict(zip(folders, matching.classes, strict=True))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Path of each image, in order."""
        return tuple(path for path, _ in self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path, label = self._files[index]
        return Sample(load_image(path), label, str(path))

    def label(self, index: int) -> int | None:
        """Return the class of an image, which is not read for it."""
        return self._files[index][1]


def class_folders(root: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders in a folder: the classes of a new model.

    Folders without images are left out. Names are in one Unicode form (NFC), as a Mac writes
    another one than other systems.

    Raises
    ------
    SepViTError
        If the folder is missing, holds splits, or fewer than two class folders with images.
    """
    folders = [folder for folder in _class_folders(root) if has_images(folder)]
    if not folders and has_images(root, below=False):
        raise SepViTError(
            f"{root} holds images and no folders; training needs a folder per class: give the "
            "folder above it, or sort the images into folders"
        )
    if not folders:
        raise SepViTError(f"{root} has no folders of images; training needs one folder per class")
    if len(folders) == 1:
        raise _one_class(folders[0], root)
    _refuse_data_sets(root, folders)
    names = tuple(unicodedata.normalize("NFC", folder.name) for folder in folders)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SepViTError(
            f"{root} has two folders named {twice}, in two Unicode forms; put their images into one"
        )
    return names


def split_folders(root: Path) -> dict[str, Path]:
    """Find the splits of a data set that is stored as a folder per split.

    The folders are splits if all folders of the root have such names (train, val, test ...), or if
    one with such a name holds folders of images and no images: a class may be named "test".

    Returns
    -------
    dict
        ``"train"``, ``"validation"``, ``"test"`` -> folder, of those that exist; empty for any
        other tree.

    Raises
    ------
    SepViTError
        If the folder cannot be read, or two of its folders are the same split.
    """
    folders = [f for f in subfolders(root) if has_images(f)] if root.is_dir() else []
    named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    if not named or not (len(named) == len(folders) or any(map(_holds_folders, named))):
        return {}
    found: dict[str, Path] = {}
    for folder in named:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in found:
            raise SepViTError(
                f"{root} has two folders for one split, {found[split].name} and {folder.name}; "
                "remove one"
            )
        found[split] = folder
    return {split: found[split] for split in dict.fromkeys(SPLIT_NAMES.values()) if split in found}


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Replace each folder by the images in it and below, sorted.

    Raises
    ------
    SepViTError
        If a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = find_images(path)
        if not inside.images:
            raise _no_image(path, inside.left_out)
        found += inside.images
        _tell_left_out(_name_of(path), inside.left_out)
    return found


def check_folder(root: Path) -> None:
    """Refuse a path that is not a folder.

    Raises
    ------
    SepViTError
        Naming the path.
    """
    try:
        found = root.is_dir()
    except (OSError, ValueError) as error:  # too long a name, or one with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise SepViTError(f"the folder {str(root)!r} cannot be read: {reason}") from None
    if not found:
        raise SepViTError(f"there is no folder {root}")


def _class_folders(root: Path, labels: Sequence[str] = ()) -> list[Path]:
    """Return the folders of a folder that may be classes; splits are refused."""
    check_folder(root)
    kept = [f for f in service_folders(root) if f.name in labels]  # named on purpose
    folders = sorted([*subfolders(root), *kept])
    splits = split_folders(root)
    full = [folder for folder in folders if has_images(folder)] if splits else []
    if not all(f.name in labels and has_images(f, below=False) for f in full):
        names = [folder.name for folder in splits.values()]
        raise SepViTError(
            f"the folders {shortened(names)} of {root} are splits of a data set and not classes; "
            f"give one of them, for example {next(iter(splits.values()))} (a class of such a name "
            "stands beside other classes, with its images directly in its folder)"
        )
    return folders


def _holds_folders(folder: Path) -> bool:
    """Tell whether the images of a folder lie in folders in it, and none beside them."""
    return not has_images(folder, below=False) and has_images(folder)


def _refuse_other_level(root: Path, folders: Sequence[Path], labels: Sequence[str]) -> None:
    """Reject a root whose class folders lie one level deeper, or which is a class folder."""
    if named_after([folder.name for folder in folders], labels):
        return
    for folder in folders:
        inner = [f.name for f in subfolders(folder)]
        if len(inner) > 1 and named_after(inner, labels) == inner:
            raise SepViTError(
                f"the class folders lie one level deeper than {root}: give {folder}, which has "
                f"{shortened(map(shown, inner))}"
            )
    above = Path(os.path.abspath(root)).parent
    if not folders and named_after([_name_of(root)], labels):
        beside = [folder.name for folder in subfolders(above)]
        if len(named_after(beside, labels)) > 1:
            raise SepViTError(f"{root} is the folder of one class: give the folder above, {above}")


def _refuse_data_sets(root: Path, folders: Sequence[Path]) -> None:
    """Reject a root whose folders hold class folders: several data sets, or one level too high.

    A class may be stored in pieces (links, or names with numbers in them).
    """
    for folder in folders:
        inner = [f for f in subfolders(folder) if has_images(f)]
        pieces = [f for f in inner if f.is_symlink() or any(c.isdigit() for c in f.name)]
        if len(inner) < 2 or pieces or not _holds_folders(folder):
            return
    raise SepViTError(
        f"no folder of {root} has images directly in it: its folders look like data sets with "
        f"class folders; give one of them, for example {folders[0]}"
    )


def _one_class(folder: Path, root: Path) -> SepViTError:
    if _holds_folders(folder):
        return SepViTError(
            f"{root} has one folder with images, and they lie in folders in it: give {folder}"
        )
    return SepViTError(
        f"{root} has one folder with images, {folder.name}; training needs two classes at least"
    )


def _name_of(root: Path) -> str:
    return os.path.basename(os.path.abspath(root)) or str(root)


def _no_image(root: Path, left_out: Mapping[str, int]) -> SepViTError:
    found = f"; {_counted(left_out)} left out" if left_out else ""
    some = ", ".join(sorted(image_suffixes() & {".jpg", ".png", ".webp", ".bmp", ".tif", ".gif"}))
    return SepViTError(
        f"there is no image in {root} (looked for {some} and the other formats of Pillow{found})"
    )


def _counted(left_out: Mapping[str, int]) -> str:
    most_first = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))

    def text(reason: str, count: int) -> str:
        is_plural = reason.endswith("s") and not reason.startswith(".")  # links, but not .jps
        return f"{count} {reason[:-1] if count == 1 and is_plural else reason}"

    return ", ".join(text(reason, count) for reason, count in most_first)


def _tell_left_out(
    name: str,
    left_out: Mapping[str, int],
    empty: Sequence[str] = (),
    service: Sequence[Path] = (),
) -> None:
    """Say which files and folders are not read, in one sentence."""
    parts = []
    if left_out:
        total = sum(left_out.values())
        parts.append(f"{total} file{'s' * (total > 1)} left out ({_counted(left_out)})")
    if empty:
        parts.append(f"folders without images left out ({shortened(map(shown, empty))})")
    ignored = [folder.name for folder in service if has_images(folder)]
    if ignored:
        parts.append(f"folders of the system left out ({shortened(ignored)})")
    if parts:
        _log.warning("%s: %s", name, "; ".join(parts))
