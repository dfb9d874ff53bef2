"""Folders of images, with or without a folder per class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import SepViTError
from .preprocess import IMAGE_SUFFIXES, load_image
from .sample import Sample


class ImageFolder:
    """A folder of images, or of one folder per class (ImageNet's layout); streamed.

    Folders are matched to classes by name if every folder is a label of the model, otherwise by
    their sorted order if there is one folder per class.

    Parameters
    ----------
    root : Path
        The folder.
    labels : sequence of str
        The model's class names, in the order of its outputs.

    Raises
    ------
    SepViTError
        If the folder is missing, holds no image, or its classes are not the model's.
    """

    def __init__(self, root: Path, labels: Sequence[str]) -> None:
        if not root.is_dir():
            raise SepViTError(f"there is no folder {root}")
        self.name = root.name
        folders = _folders(root)
        self._files: list[tuple[Path, int | None]] = []
        if folders:
            classes = self._classes([f.name for f in folders], labels)
            for folder, label in zip(folders, classes, strict=True):
                self._files += [(path, label) for path in _images(folder.rglob("*"))]
        else:
            self._files = [(path, None) for path in _images(root.iterdir())]
        if not self._files:
            raise SepViTError(
                f"there is no image in {root} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
            )

    @staticmethod
    def _classes(names: list[str], labels: Sequence[str]) -> list[int]:
        index = {label: i for i, label in enumerate(labels)}
        if all(name in index for name in names):
            return [index[name] for name in names]
        if len(names) == len(labels):
            return list(range(len(names)))
        stray = next(name for name in names if name not in index)
        raise SepViTError(
            f"the model has {len(labels)} classes, the data {len(names)} folders, and folder "
            f"{stray!r} is none of the model's labels; name each folder as its label, or give one "
            "folder per class in the order of the labels"
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path, label = self._files[index]
        return Sample(load_image(path), label, str(path))


def class_folders(root: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders in a folder: the classes of a new model.

    Raises
    ------
    SepViTError
        If the folder is missing, or holds no folder.
    """
    if not root.is_dir():
        raise SepViTError(f"there is no folder {root}")
    names = tuple(folder.name for folder in _folders(root))
    if not names:
        raise SepViTError(f"{root} has no folders in it; training needs one folder per class")
    return names


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Replace each folder by the images in it and below, sorted.

    Raises
    ------
    SepViTError
        If a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        inside = _images(path.rglob("*")) if path.is_dir() else [path]
        if not inside:
            raise SepViTError(f"there is no image in {path}")
        found += inside
    return found


def _images(paths: Iterator[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
