"""Labelled images, read one at a time: a folder per class, or a built-in set by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ..errors import CheckFailed, SepViTError, unknown_name
from .preprocess import IMAGE_SUFFIXES, load_image, to_rgb

BUILT_IN = ("digits", "glyphs")
SPLITS = ("train", "calibration", "test")


@dataclass(frozen=True)
class Sample:
    """One image with its label.

    Attributes
    ----------
    image : PIL.Image.Image
        At its own size.
    label : int or None
        Index of the class, or None in a folder without classes.
    name : str
        For messages.
    """

    image: Image.Image
    label: int | None
    name: str


class Dataset(Protocol):
    """A fixed sequence of images; each is decoded when it is asked for."""

    name: str

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Return one image, in a fixed order."""
        ...


class Digits:
    """The 1,797 handwritten 8 x 8 digits that ship with scikit-learn (UCI, CC BY 4.0).

    The split is fixed: 1,197 to train, 200 to calibrate, 400 to test, by a seeded shuffle. No image
    stands in two splits: the set has no two equal images (a test checks it).

    Parameters
    ----------
    split : str
        ``"train"``, ``"calibration"`` or ``"test"``.
    """

    labels = tuple("0123456789")

    def __init__(self, split: str) -> None:
        from sklearn.datasets import load_digits

        bounds = {"train": (0, 1197), "calibration": (1197, 1397), "test": (1397, 1797)}
        if split not in bounds:
            raise unknown_name("split", split, SPLITS)
        bunch = load_digits()
        order = np.random.default_rng(0).permutation(len(bunch.target))
        self._indices = order[slice(*bounds[split])]
        # 0..16 levels of grey become 0..255.
        self._pixels = (bunch.images * 255 / 16).round().astype(np.uint8)
        self._labels = bunch.target
        self.name = f"digits/{split}"

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        source = int(self._indices[index])
        image = Image.fromarray(self._pixels[source])
        return Sample(image, int(self._labels[source]), f"{self.name}/{source}")


class Unlabelled:
    """The images of a data set without their labels: for models with other classes.

    Parameters
    ----------
    data : Dataset
        Whose images to take.
    """

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self.name = data.name

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        return replace(self._data[index], label=None)


class ImageFolder:
    """A folder of images, or of one folder per class (ImageNet's layout); streamed.

    Folders are matched to classes by name where every folder is a label of the model, else by
    their sorted order where there are as many folders as classes.

    Parameters
    ----------
    root : Path
        The folder.
    labels : sequence of str
        The model's class names, in the order of its outputs.

    Raises
    ------
    SepViTError
        If there is no such folder, no image in it, or its classes are not the model's.
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
            f"{stray!r} is none of the model's labels; give one folder per class"
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path, label = self._files[index]
        return Sample(load_image(path), label, str(path))


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders of a labelled tree of images, sorted: the classes of a new model.

    Raises
    ------
    SepViTError
        If there is no such folder, or no folder in it.
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
    """Replace each folder by the images in it and below, in order.

    Raises
    ------
    SepViTError
        If a folder holds none.
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


def open_dataset(spec: str | Path, labels: Sequence[str], split: str = "test") -> Dataset:
    """Open a built-in data set by name, or a folder.

    Parameters
    ----------
    spec : str or Path
        ``"digits"``, ``"glyphs"``, or the path of a folder.
    labels : sequence of str
        The model's class names.
    split : str
        Of a built-in set; a folder is taken whole.

    Raises
    ------
    SepViTError
        If there is no such set or folder, or its classes are not the model's.
    """
    if spec == "digits":
        if tuple(labels) != Digits.labels:
            raise SepViTError("the model's classes are not the digits 0-9; give --data FOLDER")
        return Digits(split)
    if spec == "glyphs":
        from . import glyphs

        if tuple(labels) != glyphs.LABELS:
            raise SepViTError("the model's classes are not 0-9, A-Z, a-z; give --data FOLDER")
        return glyphs.Glyphs(split)
    if not Path(spec).exists() and Path(spec).parent == Path("."):
        raise unknown_name("data set or folder", str(spec), BUILT_IN)
    return ImageFolder(Path(spec), labels)


def refuse_seen(evaluated: Dataset, trained_on: str | None) -> None:
    """Refuse to measure a model on images that it was trained on.

    Parameters
    ----------
    evaluated : Dataset
        What it is to be measured on.
    trained_on : str or None
        The built-in data that its checkpoint names. Splits of `glyphs` differ by their fonts and
        their training images have no end, so only `digits` has to be compared.

    Raises
    ------
    CheckFailed
        If an image stands in both.
    """
    if trained_on == "digits/train":
        refuse_overlap(evaluated, Digits("train"), "training")


def content_digests(data: Dataset) -> set[str]:
    """SHA-256 of each image's size and RGB pixels: equal images are found under any file name."""
    return {_digest(data[i].image) for i in range(len(data))}


def _digest(image: Image.Image) -> str:
    rgb = to_rgb(image)
    return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()


def refuse_overlap(evaluated: Dataset, other: Dataset, role: str) -> None:
    """Refuse to measure on images that the model was trained or calibrated on.

    Raises
    ------
    CheckFailed
        If an image stands in both sets.
    """
    shared = content_digests(evaluated) & content_digests(other)
    if shared:
        raise CheckFailed(
            f"{len(shared)} images of {evaluated.name} are also in the {role} data "
            f"{other.name}; measure on images that the model has not seen"
        )
