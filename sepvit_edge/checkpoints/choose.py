"""The model that a command's options name."""

from __future__ import annotations

from typing import cast

import torch

from ..model.create import create_model
from ..model.dense import DenseConfig, DenseModel, DenseTask
from ..model.dense.config import WindowRule, default_head, paper_classes
from ..model.reference import SepViT
from .builtin import default_checkpoint, default_dense_checkpoint
from .dense_names import check_dense_names
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


def choose_dense(
    weights: str,
    variant: str,
    labels: str,
    task: str,
    head: str = "",
    input_size: tuple[int, int] | None = None,
    window: str = "",
) -> DenseModel:
    """Load the dense model that the options name; an empty option is one that was not given.

    Parameters
    ----------
    weights : str
        A checkpoint, the name of a built-in one, or ``"random"``. Default: the built-in checkpoint
        of the head.
    variant, labels : str
        As for `choose_model`.
    task, head, window : str
        See `sepvit_edge.model.dense.DenseConfig`. Default of a checkpoint: its own.
    input_size : tuple of int, optional
        Height and width in pixels. Default: the checkpoint's own, or 512 x 512.

    Raises
    ------
    SepViTError
        If a file cannot be read, or the options contradict each other.
    """
    names = read_labels(labels) if labels else None
    check_dense_names(weights, task, head, input_size, window)
    if weights != "random":
        return load_checkpoint(
            weights or default_dense_checkpoint(task, head),
            variant=variant or None,
            labels=names,
            task=cast(DenseTask, task),
            head=head or None,
            input_size=input_size,
            window=cast(WindowRule, window) if window else None,
        )
    head = head or default_head(task)
    config = DenseConfig(
        cast(DenseTask, task),
        head,
        variant or "lite",
        len(names) if names else paper_classes(head),
        input_size or (512, 512),
        cast(WindowRule, window or "paper"),
        labels=names or (),
    )
    return random_dense(config)


def random_dense(config: DenseConfig) -> DenseModel:
    """Create a dense model with seeded random weights, as `random_model` does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DenseModel(config).eval()


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
