"""Data sets for dense prediction by name: a built-in one, a COCO file, or a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from ...errors import SepViTError, unknown_name
from ..folders import SPLIT_NAMES
from .coco import CocoBoxes
from .masks import IMAGES, LABELS, MASKS, IndexMasks, read_mask_labels
from .sample import DenseDataset
from .scenes import Scenes

DENSE_BUILT_IN = ("scenes",)
_ROBOFLOW = "_annotations.coco.json"


def open_dense(
    spec: str | Path,
    task: str,
    labels: Sequence[str] | None = None,
    split: str = "test",
    wide: bool = False,
) -> DenseDataset:
    """Open a data set.

    Parameters
    ----------
    spec : str or Path
        ``"scenes"``; in detection a COCO file, or a folder with one; in segmentation a folder with
        images and masks.
    task : str
        ``"segmentation"``, ``"detection"`` or ``"instance-segmentation"``: boxes with masks.
    labels : sequence of str, optional
        The model's class names, which the data's must be.
    split : str
        Split of a built-in set.
    wide : bool
        Fonts of scenes; see `Scenes`.

    Raises
    ------
    SepViTError
        If there is no such set, it cannot be read, or its classes are not the model's.

    Examples
    --------
    >>> scenes = open_dense("scenes", "segmentation")
    >>> scenes[0].mask.shape, scenes.labels[:3]
    ((128, 128), ('ground', 'disc', 'square'))
    """
    check_dense_name(str(spec))
    path = Path(spec)
    data: DenseDataset
    if spec in DENSE_BUILT_IN:
        data = Scenes(split, task, wide=wide)
    elif task != "segmentation":
        data = CocoBoxes(_coco_file(path), segments=task == "instance-segmentation")
    else:
        images, masks = _mask_folders(path)
        data = IndexMasks(images, masks, read_mask_labels(path, labels))
    if labels is not None:
        _same_classes(data, labels)
    return data


def check_dense_name(spec: str) -> None:
    """Refuse a name that is neither a built-in set nor a file or folder; empty is left.

    Raises
    ------
    SepViTError
        If there is nothing of that name.
    """
    path = Path(spec)
    if not spec or spec in DENSE_BUILT_IN or path.exists():
        return
    if path.parent == Path("."):
        raise unknown_name("data set, file or folder", spec, DENSE_BUILT_IN)
    raise SepViTError(f"there is no file or folder {path}")


def dense_splits(root: Path, task: str) -> dict[str, Path]:
    """Find the splits of a folder.

    In detection ``train.json``, ``annotations/instances_train2017.json`` or
    ``train/_annotations.coco.json``; in segmentation ``train/images`` and ``train/masks``, or
    ``images/train`` and ``masks/train``. Other names: val, valid, validation; test.

    Returns
    -------
    dict
        ``"train"``, ``"validation"``, ``"test"`` -> what `open_dense` takes, of those that exist.

    Raises
    ------
    SepViTError
        If there are two of one split.
    """
    if task == "detection":
        files = [*root.glob("*.json"), *root.glob("annotations/*.json")]
        named = [
            (path.stem.removeprefix("instances_").rstrip("0123456789"), path) for path in files
        ]
        named += [(path.parent.name, path) for path in root.glob(f"*/{_ROBOFLOW}")]
    else:
        named = [(path.parent.name, path.parent) for path in root.glob(f"*/{IMAGES}")]
        named += [(path.name, path) for path in (root / IMAGES).glob("*") if path.is_dir()]
    return _one_each(named, root)


def _one_each(named: Iterable[tuple[str, Path]], root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, path in sorted(named):
        split = SPLIT_NAMES.get(name.lower())
        if split in found:
            raise SepViTError(
                f"{root} has two sets for one split, {found[split]} and {path}; give one of them"
            )
        if split is not None:
            found[split] = path
    return found


def _coco_file(path: Path) -> Path:
    """Return the COCO file that a path means."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.json"))
    if len(files) == 1:
        return files[0]
    what = f"{len(files)} JSON files" if files else "no JSON file"
    raise SepViTError(f"{path} has {what}; give the COCO file of the images")


def _mask_folders(path: Path) -> tuple[Path, Path]:
    """Return the folders of images and masks that a path means."""
    if not path.is_dir():
        raise SepViTError(f"{path} is a file; give a folder with {IMAGES} and {MASKS} in it")
    if (path / IMAGES).is_dir() and (path / MASKS).is_dir():
        return path / IMAGES, path / MASKS
    if path.parent.name == IMAGES:
        return path, path.parent.parent / MASKS / path.name
    raise SepViTError(
        f"{path} needs two folders, {IMAGES} and {MASKS}, and the class names in {LABELS}"
    )


def _same_classes(data: DenseDataset, labels: Sequence[str]) -> None:
    for place, (theirs, own) in enumerate(zip_longest(data.labels, labels)):
        if theirs != own:
            raise SepViTError(
                f"the classes of {data.name} are not the model's: class {place} is {theirs!r} "
                f"there and {own!r} in the model"
            )
