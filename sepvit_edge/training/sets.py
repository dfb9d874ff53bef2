"""The images of a training run: to train on, for the curve, and for the final accuracy."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..data.choose import BUILT_IN, open_dataset
from ..data.classes import shortened, shown
from ..data.folders import ImageFolder, split_folders
from ..data.preprocess import check_header
from ..data.sample import Dataset, Taken
from ..data.split import is_held_out
from ..errors import SepViTError
from .recipe import TrainingRecipe

# Above this ratio of the largest class to the smallest one, a model leans to the large one.
_UNEVEN = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sets:
    """The images of a run.

    Attributes
    ----------
    train : Dataset or None
        Images to train on; None for glyphs, which are drawn anew for each epoch.
    validation : Dataset or None
        Images for the curve and the choice of the best weights.
    test : Dataset or None
        Images for the final accuracy: the validation images where there are no others.
    calibration : Dataset
        Images for the starting scales of quantisation-aware training.
    """

    train: Dataset | None
    validation: Dataset | None
    test: Dataset | None
    calibration: Dataset


def with_splits(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return the recipe with the train, validation and test folders of its data, if it has them.

    Raises
    ------
    SepViTError
        If the folder has splits but none to train on.
    """
    if recipe.data in BUILT_IN or not recipe.data:
        return recipe
    splits = split_folders(Path(recipe.data))
    if not splits or recipe.distillation.unlabelled:
        return recipe
    if "train" not in splits:
        raise SepViTError(
            f"{recipe.data} holds {' and '.join(f.name for f in splits.values())}, and no train "
            "folder; give the folder to train on by --data"
        )
    found = {name: str(folder) for name, folder in splits.items() if name != "train"}
    own = {key: getattr(recipe, key) or found.get(key, "") for key in ("validation", "test")}
    return recipe.model_copy(update={"data": str(splits["train"]), **own})


def open_sets(
    recipe: TrainingRecipe, labels: tuple[str, ...], say: Callable[[str], None] = lambda text: None
) -> Sets:
    """Open the images that a recipe names.

    Parameters
    ----------
    recipe : TrainingRecipe
        With its splits (`with_splits`).
    labels : tuple of str
        Class names.
    say : callable
        Gets the classes with their counts, as a sentence.

    Raises
    ------
    SepViTError
        If a folder is missing, its classes are not the model's, a file in it is not an image, or a
        split leaves a side empty.
    """
    if recipe.data in BUILT_IN:
        drawn = recipe.data == "glyphs"
        held_out = open_dataset(recipe.data, labels, "calibration")
        return Sets(
            None if drawn else open_dataset(recipe.data, labels, "train"),
            held_out,
            open_dataset(recipe.data, labels, "test"),
            held_out,
        )
    named = None if recipe.distillation.unlabelled else labels
    train = _open(recipe.data, named)
    validation = test = None
    if recipe.validation:
        validation = _open(recipe.validation, labels, recipe.classes)
    elif recipe.validation_split:
        train, validation = _split(train, recipe.validation_split)
    if recipe.test:
        test = _open(recipe.test, labels, recipe.classes)
    if named is not None:
        _tell_classes(train, labels, say)
    if validation is not None:
        say(
            f"{len(validation)} images for validation"
            + (f", {len(test)} for the test" if test else "")
        )
    return Sets(train, validation, test or validation, train)


def _open(spec: str, labels: tuple[str, ...] | None, classes: str = "") -> Dataset:
    """Open images, and read the header of each file: rather now than in the middle of an epoch."""
    data = open_dataset(spec, labels, classes=classes)
    if isinstance(data, ImageFolder):
        for path in data.paths:
            check_header(path)
    return data


def _split(data: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Split a folder by the content of its images."""
    assert isinstance(data, ImageFolder)
    held = [is_held_out(path, share, "validation") for path in data.paths]
    sides = [[i for i, out in enumerate(held) if out is side] for side in (False, True)]
    if not all(sides):
        raise SepViTError(
            f"a split of {share:g} of {len(data)} images leaves one side empty; give "
            "--validation FOLDER"
        )
    train, validation = (Taken(data, side) for side in sides)
    return train, validation


def _tell_classes(data: Dataset, labels: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Say how many images each class has, and warn where that is uneven or nothing."""
    counts = Counter(data.label(i) for i in range(len(data)))
    listed = ", ".join(f"{shown(name)} {counts[i]}" for i, name in enumerate(labels))
    say(f"{len(labels)} classes, {len(data)} images to train on: {listed}")
    missing = [name for i, name in enumerate(labels) if not counts[i]]
    if missing:
        raise SepViTError(
            f"no image to train on for {shortened(missing)}; add some, or remove the class"
        )
    most, least = max(counts.values()), min(counts.values())
    if most > _UNEVEN * least:
        _log.warning(
            f"the largest class has {most} images and the smallest {least}: the model will lean "
            "to the large ones; add images to the small ones"
        )
