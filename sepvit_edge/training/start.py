"""The model that a training run starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import nn

from ..checkpoints.files import load_checkpoint
from ..model.create import create_model
from ..model.reference import DropPath, SepViT
from ..model.variants import find_variant
from .data import rule_of
from .recipe import TrainingRecipe
from .widen import widen


def starting_model(
    recipe: TrainingRecipe,
    weights: str,
    variant: str,
    labels: tuple[str, ...],
    qat: bool,
    say: Callable[[str], None],
) -> tuple[SepViT, TrainingRecipe]:
    """Return the model to train, and the recipe with what the model decides.

    With `weights` the checkpoint decides variant and preprocessing, and the image size unless the
    recipe states one. Otherwise the weights are drawn from the recipe's seed.
    """
    torch.manual_seed(recipe.seed)
    if not weights:
        drop_path = recipe.drop_path
        model = create_model(
            recipe.variant,
            len(labels),
            recipe.resolution_schedule[0][0],
            preprocessing=rule_of(recipe),
            labels=labels,
            drop_path=find_variant(recipe.variant).drop_path if drop_path is None else drop_path,
        )
        return model, recipe
    stated = "resolution_schedule" in recipe.model_fields_set
    size = recipe.resolution_schedule[0][0] if stated else None
    model = load_checkpoint(weights, image_size=size)
    if not qat:
        model.quantization = None  # trained weights no longer are its integers
    if not qat and set(labels) != set(model.config.labels):
        say(
            f"the checkpoint has other classes ({model.config.num_classes}) than are to be learnt "
            f"({len(labels)}): the classifier starts anew"
        )
        model = with_classes(model, labels)
    if variant and find_variant(variant).key != model.config.variant:
        model = widen(model, variant, recipe.seed)
    if recipe.drop_path is not None:
        set_drop_path(model, recipe.drop_path)
    rule = model.config.preprocessing
    schedule = recipe.resolution_schedule if stated else ((model.config.image_size, 1.0),)
    changes = {
        "variant": model.config.variant,
        "crop": rule.crop,
        "mean": rule.mean,
        "std": rule.std,
        "resolution_schedule": schedule,
    }
    return model, recipe.model_copy(update=changes)


def with_classes(model: SepViT, labels: tuple[str, ...]) -> SepViT:
    """Return the model with a new classifier for other classes; the rest of it is shared."""
    config = replace(model.config, num_classes=len(labels), labels=labels)
    twin = SepViT(config)
    state = model.state_dict(keep_vars=True)
    state |= twin.head.state_dict(keep_vars=True, prefix="head.")
    twin.load_state_dict(state, assign=True)
    return twin


def set_drop_path(model: SepViT, rate: float) -> None:
    """Set the rate of stochastic depth: 0 at the first branch, `rate` at the last block."""
    blocks = [block for stage in model.blocks for block in cast(nn.ModuleList, stage)]
    for block, share in zip(blocks, np.linspace(0, rate, len(blocks)), strict=True):
        for module in block.modules():
            if isinstance(module, DropPath):
                module.rate = float(share)
