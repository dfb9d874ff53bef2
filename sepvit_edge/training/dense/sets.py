"""The images of a dense training run: to train on, for the curve, and for the final figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...data.dense.choose import DENSE_BUILT_IN, dense_splits, open_dense
from ...data.dense.masks import IndexMasks
from ...data.dense.sample import DenseDataset
from ...errors import SepViTError
from ..recipe import TrainingRecipe


@dataclass(frozen=True)
class DenseSets:
    """The images of a run.

    Attributes
    ----------
    labels : tuple of str
        Classes to learn.
    train : DenseDataset or None
        Images to train on; None for scenes, which are drawn anew for each epoch.
    validation : DenseDataset or None
        Images for the curve and the choice of the best weights.
    test : DenseDataset or None
        Images for the final figure: the validation images where there are no others.
    """

    labels: tuple[str, ...]
    train: DenseDataset | None
    validation: DenseDataset | None
    test: DenseDataset | None


def with_dense_splits(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return the recipe with the splits of its data, if it has them.

    Raises
    ------
    SepViTError
        If there are splits but none to train on.
    """
    root = Path(recipe.data)
    if recipe.data in DENSE_BUILT_IN or not root.is_dir():
        return recipe
    splits = dense_splits(root, recipe.task)
    if not splits:
        return recipe
    if "train" not in splits:
        raise SepViTError(
            f"{root} holds {' and '.join(str(path) for path in splits.values())}, and nothing "
            "named train; give what to train on by --data"
        )
    found = {key: str(path) for key, path in splits.items()}
    own = {key: getattr(recipe, key) or found.get(key, "") for key in ("validation", "test")}
    return recipe.model_copy(update={"data": found["train"], **own})


def open_dense_sets(recipe: TrainingRecipe, say: Callable[[str], None]) -> DenseSets:
    """Open the images that a recipe names.

    Parameters
    ----------
    recipe : TrainingRecipe
        With its splits (`with_dense_splits`).
    say : callable
        Gets the number of images, as a sentence.

    Raises
    ------
    SepViTError
        If a set cannot be read, or its classes are not those of the training images.
    """
    task = recipe.task
    if recipe.data in DENSE_BUILT_IN:
        held_out = open_dense(recipe.data, task, split="calibration", wide=recipe.wide_fonts)
        return DenseSets(held_out.labels, None, held_out, open_dense(recipe.data, task))
    train = open_dense(recipe.data, task)
    named = [recipe.validation, recipe.test]
    validation, test = (open_dense(n, task, train.labels) if n else None for n in named)
    for data in (train, validation, test):
        if isinstance(data, IndexMasks):
            data.check()
    say(
        f"{len(train.labels)} classes, {len(train)} images to train on"
        + (f", {len(validation)} for validation" if validation else "")
        + (f", {len(test)} for the test" if test else "")
    )
    return DenseSets(train.labels, train, validation, test or validation)
