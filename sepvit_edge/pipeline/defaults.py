"""What an export takes where its caller names nothing: precision, folder and built-in images."""

from __future__ import annotations

from pathlib import Path

from ..config.recipe import Precision, Recipe
from ..data.dense.images import SceneImages
from ..data.digits import Digits
from ..data.glyphs import Glyphs
from ..data.sample import Dataset, Unlabelled
from ..model.create import ReferenceModel
from ..model.dense import DenseConfig, DenseModel

# Images for parity without labels: enough to measure the distance of the logits.
UNLABELLED_IMAGES = 32
# One image of a dense model is thousands of positions, in parity and in calibration.
DENSE_IMAGES, DENSE_CALIBRATION_IMAGES = 4, 16
# Ten a class.
GLYPHS_IMAGES = 620


def default_precision(model: ReferenceModel) -> Precision:
    """Return int8 for a quantisation-aware model, otherwise fp32."""
    return "fp32" if model.quantization is None else "int8"


def default_calibration(model: ReferenceModel) -> Dataset:
    """Return built-in calibration images, of the set that the model was trained on if known."""
    if _on_scenes(model):
        return SceneImages("calibration")
    on_glyphs = model.source is not None and model.source.trained_on == "glyphs/train"
    if on_glyphs or isinstance(model, DenseModel):
        return Glyphs("calibration")
    return Digits("calibration")


def calibrates_on_others(model: ReferenceModel) -> bool:
    """Tell whether `default_calibration` has other images than a model was trained on."""
    return model.source is None or model.source.trained_on is None


def calibration_images(model: ReferenceModel, recipe: Recipe) -> int:
    """Return the largest number of images to calibrate a model on."""
    images = recipe.quantization.calibration_images
    return min(images, DENSE_CALIBRATION_IMAGES) if isinstance(model, DenseModel) else images


def _on_scenes(model: ReferenceModel) -> bool:
    return model.source is not None and model.source.trained_on == "scenes/train"


def default_output(model: ReferenceModel, recipe: Recipe) -> Path:
    """Return the folder that a package gets by default."""
    config = model.config
    parts = [config.variant, recipe.target, recipe.precision]
    if isinstance(config, DenseConfig):
        parts.insert(1, config.head)
    return Path("packages") / "-".join(parts)


def default_data(model: ReferenceModel, images: int | None = None) -> tuple[Dataset, int | None]:
    """Choose built-in images that a model was not trained on, as `data_for` does."""
    if isinstance(model, DenseModel):
        data = SceneImages("test") if _on_scenes(model) else Unlabelled(Glyphs("test"))
        return data, images or DENSE_IMAGES
    return data_for(model.source.trained_on if model.source is not None else None, images)


def data_for(trained_on: str | None, images: int | None = None) -> tuple[Dataset, int | None]:
    """Choose built-in images for weights that were trained on other ones.

    Parameters
    ----------
    trained_on : str or None
        The built-in data that the checkpoint names.
    images : int, optional
        Number of images.

    Returns
    -------
    data : Dataset
        Labelled if the model was trained on this set.
    images : int or None
        Number of images to take; None for all.
    """
    digits = Digits("test")
    if trained_on == "digits/train":
        return digits, images
    if trained_on == "glyphs/train":
        return Glyphs("test"), images or GLYPHS_IMAGES
    return Unlabelled(digits), images or UNLABELLED_IMAGES
