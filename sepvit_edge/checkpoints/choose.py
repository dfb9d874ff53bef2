"""The model that a command's options name."""

from __future__ import annotations

import torch

from ..model.create import create_model
from ..model.reference import SepViT
from .builtin import default_checkpoint
from .files import load_checkpoint
from .labels import read_labels


def choose_model(weights: str, variant: str, labels: str, image_size: int | None) -> SepViT:
    """Load the model that the options name; an empty option is one that was not given.

    Parameters
    ----------
    weights : str
        A checkpoint, the name of a built-in one, or ``"random"``. Default: the built-in checkpoint
        of the variant.
    variant : str
        Key of the variant; a checkpoint of another variant is refused.
    labels : str
        File of class names, or ``"imagenet"``. Default: the checkpoint's own.
    image_size : int or None
        Side in pixels. Default: the checkpoint's own.

    Raises
    ------
    SepViTError
        If a file cannot be read, or the options contradict each other.
    """
    names = read_labels(labels) if labels else None
    if weights == "random":
        classes = len(names) if names else 1000
        return random_model(variant or "lite", classes, image_size or 224, names or ())
    return load_checkpoint(
        weights or default_checkpoint(variant or None),
        variant=variant or None,
        labels=names,
        image_size=image_size,
    )


def random_model(
    variant: str, num_classes: int, image_size: int, labels: tuple[str, ...] = ()
) -> SepViT:
    """Create a model with seeded random weights.

    Size and latency are real, the answers are not. The weights are the same on every call; the
    caller's random state stays as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model(variant, num_classes, image_size, labels=labels)
