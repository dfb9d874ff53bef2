"""The dense model that a training run starts from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...checkpoints.files import load_checkpoint
from ...model.create import create_model
from ...model.dense import DenseModel, from_classifier
from ...model.reference import SepViT
from ...model.variants import Preprocessing, find_variant
from ..recipe import TrainingRecipe
from .images import DenseImages

# The first norms are fitted to these.
_IMAGES = 16


def starting_dense_model(
    recipe: TrainingRecipe,
    weights: str,
    labels: tuple[str, ...],
    images: DenseImages,
    say: Callable[[str], None],
) -> tuple[DenseModel, TrainingRecipe]:
    """Return the model to train, and the recipe with what the weights decide.

    Parameters
    ----------
    recipe : TrainingRecipe
        Task, head, sizes, and the seed of new weights.
    weights : str
        Checkpoint to start from, of a classifier or of a dense model; empty for none. It decides
        variant, mean and std.
    labels : tuple of str
        Classes to learn.
    images : DenseImages
        Training images, to fit the norms to behind the stages of a classifier.
    say : callable
        Gets sentences for the user.

    Raises
    ------
    SepViTError
        If the checkpoint cannot be read, or the sizes do not fit.
    """
    torch.manual_seed(recipe.seed)
    if not weights:
        return _new(recipe, labels), recipe
    start = load_checkpoint(weights, task=None)
    rule = start.config.preprocessing
    changes = {"variant": start.config.variant, "mean": rule.mean, "std": rule.std}
    recipe = recipe.model_copy(update=changes)
    model = _new(recipe, labels)
    if isinstance(start, SepViT):
        model = from_classifier(start, model.config, _some(images, recipe))
        say("the backbone starts from a classifier's weights; neck and head start anew")
    else:
        model = _from_dense(start, model, say)
    return model, recipe


def _new(recipe: TrainingRecipe, labels: tuple[str, ...]) -> DenseModel:
    dense, rate = recipe.dense, recipe.drop_path
    return create_model(
        recipe.variant,
        len(labels),
        task=recipe.task,  # type: ignore[arg-type]
        head=dense.head or None,
        input_size=dense.input_size,
        window=dense.window,
        channels=dense.channels,
        preprocessing=Preprocessing(1.0, recipe.mean, recipe.std),
        labels=labels,
        drop_path=find_variant(recipe.variant).drop_path if rate is None else rate,
    )


def _from_dense(start: DenseModel, model: DenseModel, say: Callable[[str], None]) -> DenseModel:
    """Give a model the weights of another one, but for those that depend on other classes."""
    theirs, own = start.state_dict(), model.state_dict()
    same = {k: v for k, v in theirs.items() if k in own and v.shape == own[k].shape}
    other = [key for key in own if key not in same]
    if start.config.labels != model.config.labels:
        other += [key for key in same if _depends_on_classes(key)]
    if other:
        say(f"{len(other)} tensors start anew, as classes, head or channels are others")
    model.load_state_dict(own | {k: v for k, v in same.items() if k not in other})
    return model


def _depends_on_classes(key: str) -> bool:
    return "conv_seg" in key or "retina_cls" in key


def _some(images: DenseImages, recipe: TrainingRecipe) -> Tensor:
    """Return some normalised training images (B, 3, H, W)."""
    count = min(_IMAGES, len(images))
    pixels = torch.stack([images[0, 0, i * len(images) // count][0] for i in range(count)])
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) * 255 for v in (recipe.mean, recipe.std))
    return (pixels.float() - mean) / std
