"""Data sets by name: a built-in one, or a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import SepViTError, unknown_name
from . import glyphs
from .classes import read_pairs
from .digits import Digits
from .folders import ImageFolder, check_folder, class_folders
from .sample import Dataset, Unlabelled

BUILT_IN = ("digits", "glyphs")


def open_dataset(
    spec: str | Path,
    labels: Sequence[str] | None,
    split: str = "test",
    classes: str | Path = "",
) -> Dataset:
    """Open a built-in data set by name, or a folder.

    Parameters
    ----------
    spec : str or Path
        ``"digits"``, ``"glyphs"``, or the path of a folder.
    labels : sequence of str or None
        The model's class names; None for images without labels.
    split : str
        Split of a built-in set; a folder is taken whole.
    classes : str or Path
        File that gives each folder its label (`sepvit_edge.data.classes.read_pairs`).

    Raises
    ------
    SepViTError
        If there is no such set or folder, or its classes are not the model's.

    Examples
    --------
    >>> digits = open_dataset("digits", "0123456789")
    >>> len(digits), digits[0].image.size, digits[0].label
    (400, (8, 8), 5)
    """
    if spec in BUILT_IN and classes:
        raise SepViTError(f"--classes is for folders; leave it out with {spec}")
    if spec == "digits":
        if labels is None:
            return Unlabelled(Digits(split))
        if tuple(labels) != Digits.labels:
            raise SepViTError("the model's classes are not the digits 0-9; give --data FOLDER")
        return Digits(split)
    if spec == "glyphs":
        if labels is None:
            return Unlabelled(glyphs.Glyphs(split))
        if tuple(labels) != glyphs.LABELS:
            raise SepViTError("the model's classes are not 0-9, A-Z, a-z; give --data FOLDER")
        return glyphs.Glyphs(split)
    check_data_name(spec)
    return ImageFolder(Path(spec), labels, read_pairs(classes) if classes else None)


def check_data_name(spec: str | Path) -> None:
    """Refuse a name that is neither a built-in data set nor a folder; read nothing.

    Raises
    ------
    SepViTError
        If there is no such set or folder.
    """
    if spec in BUILT_IN:
        return
    if not Path(spec).exists() and Path(spec).parent == Path("."):
        raise unknown_name("data set or folder", str(spec), BUILT_IN)
    check_folder(Path(spec))


def class_names(spec: str | Path) -> tuple[str, ...]:
    """Return the class names of a built-in set, or the names of a folder's folders.

    Raises
    ------
    SepViTError
        If there is no such folder, or it holds no folder.
    """
    built_in = {"digits": Digits.labels, "glyphs": glyphs.LABELS}
    return built_in[str(spec)] if str(spec) in built_in else class_folders(Path(spec))
