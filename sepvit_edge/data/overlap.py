"""Guard against measuring a model on images that it has seen."""

from __future__ import annotations

import hashlib

from PIL import Image

from ..errors import CheckFailed
from .digits import Digits
from .preprocess import to_rgb
from .sample import Dataset


def refuse_seen(evaluated: Dataset, trained_on: str | None) -> None:
    """Refuse to measure a model on images that it was trained on.

    Parameters
    ----------
    evaluated : Dataset
        The images to measure on.
    trained_on : str or None
        The built-in data that the checkpoint names. Only `digits` is compared: the splits of
        `glyphs` differ by their fonts, and its training images are drawn without end.

    Raises
    ------
    CheckFailed
        If an image is in both.
    """
    if trained_on == "digits/train":
        refuse_overlap(evaluated, Digits("train"), "training")


def refuse_overlap(evaluated: Dataset, other: Dataset, role: str) -> None:
    """Refuse to measure on images that the model was trained or calibrated on.

    Parameters
    ----------
    evaluated, other : Dataset
        The images to measure on, and those that the model has seen. All of both are decoded, so
        give samples of large sets (`sepvit_edge.data.sample`).
    role : str
        Use of `other`, for the message: ``"training"`` or ``"calibration"``.

    Raises
    ------
    CheckFailed
        If an image is in both sets.
    """
    shared = content_digests(evaluated) & content_digests(other)
    if shared:
        raise CheckFailed(
            f"{len(shared)} images of {evaluated.name} are also in the {role} data "
            f"{other.name}; measure on images that the model has not seen"
        )


def content_digests(data: Dataset) -> set[str]:
    """Return the digests of all images: equal images are found under any file name."""
    return {image_digest(data[i].image) for i in range(len(data))}


def image_digest(image: Image.Image) -> str:
    """Return the SHA-256 of an image's size and RGB pixels."""
    rgb = to_rgb(image)
    return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
