"""The recipe and the calibration images that a command's options name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.recipe import Recipe, find_recipe, load_recipe
from ..data.choose import open_dataset
from ..data.sample import Dataset
from ..errors import SepViTError
from .console import warn

if TYPE_CHECKING:
    from ..model.create import ReferenceModel


def choose_recipe(
    recipe: str, target: str, precision: str, model: ReferenceModel | None = None
) -> Recipe:
    """Return the recipe that the options name; an empty option is one that was not given.

    Parameters
    ----------
    recipe : str
        Name of a recipe, or a TOML file.
    target : str
        Default: ``"openvino"``.
    precision : str
        Default: int8 for a quantisation-aware model, otherwise the target's first.
    model : SepViT or DenseModel, optional
        The model to export.

    Raises
    ------
    SepViTError
        If there is no such recipe, or the options contradict each other.
    """
    if not recipe:
        own = None
        if model is not None:
            from ..pipeline.defaults import default_precision

            own = default_precision(model)
        return find_recipe(target or "openvino", precision or own)
    chosen = load_recipe(recipe)
    for option, given, stated in (
        ("--target", target, chosen.target),
        ("--precision", precision, chosen.precision),
    ):
        if given and given != stated:
            raise SepViTError(f"{option} {given} contradicts --recipe {recipe}, which has {stated}")
    return chosen


def keep_in_float(recipe: Recipe, patterns: Sequence[str]) -> Recipe:
    """Add patterns of layers to those that a recipe leaves in float.

    Raises
    ------
    SepViTError
        If the recipe is not for int8.
    """
    if not patterns:
        return recipe
    if recipe.precision != "int8":
        raise SepViTError(f"--keep-float is for int8; this package is {recipe.precision}")
    kept = (*recipe.quantization.keep_float, *patterns)
    options = recipe.quantization.model_copy(update={"keep_float": kept})
    return recipe.model_copy(update={"quantization": options})


def choose_data(data: str, classes: str, labels: Sequence[str]) -> Dataset | None:
    """Open the images to measure on that the options name.

    Parameters
    ----------
    data : str
        A folder or a built-in set; empty if the option was not given.
    classes : str
        File that gives each folder its label, or empty.
    labels : sequence of str
        The model's class names.

    Raises
    ------
    SepViTError
        If there are no such images, their folders are not the model's classes, or a file of
        classes is given without a folder.
    """
    if data:
        return open_dataset(data, labels, classes=classes)
    if classes:
        raise SepViTError("--classes gives the folders of --data their labels; give --data too")
    return None


def choose_calibration(calibration: str, model: ReferenceModel, recipe: Recipe) -> Dataset | None:
    """Open the calibration images that the option names.

    Warns if built-in images are used for a model that was trained on others.

    Returns
    -------
    Dataset or None
        Without labels; None for the built-in images.

    Raises
    ------
    SepViTError
        If there are no such images, or the package needs no calibration.
    """
    from ..pipeline.defaults import calibrates_on_others
    from ..pipeline.facts import task_of

    full = recipe.quantization.scheme == "full"
    calibrated = recipe.precision == "int8" and (full or model.quantization is None)
    if calibration:
        if not calibrated:
            why = "the weights are quantisation-aware" if model.quantization else "it is not int8"
            raise SepViTError(f"this package needs no --calibration: {why}")
        return open_dataset(calibration, None, "calibration")
    if calibrated and calibrates_on_others(model):
        images = "digits" if task_of(model) == "classification" else "glyphs"
        warn(f"calibrated on built-in {images}; give typical images with --calibration FOLDER")
    return None
