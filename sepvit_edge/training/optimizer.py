"""AdamW and its learning rates: which weights change, when, and how fast."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .recipe import TrainingRecipe
from .steps import StepPlan

_SCALES_RATE = 5.0
_PLACE = re.compile(r"(patch_embeds|pos_block|blocks|norm_list)\.(\d)\.(\d+)?")
_BEHIND = (4, 0)  # the stages


def create_optimizer(trainee: nn.Module, recipe: TrainingRecipe) -> torch.optim.AdamW:
    """Return AdamW over the weights that a recipe trains.

    Biases, norms and scales do not decay. With `layer_decay`, each block learns more slowly than
    the one behind it (Clark et al., arXiv 2003.10555); with `freeze_until`, what is in front of a
    stage does not learn at all, and is marked so in the trainee.

    Parameters
    ----------
    trainee : torch.nn.Module
        A `sepvit_edge.training.loop.Trainee`.
    recipe : TrainingRecipe
        Learning rate, weight decay, layer decay and freezing.
    """
    freeze(trainee, recipe.freeze_until)
    trained = {name: p for name, p in trainee.named_parameters() if p.requires_grad}
    below_head = _below_head(trained) if recipe.layer_decay < 1 else dict.fromkeys(trained, 0)
    groups: dict[tuple[int, int], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        below = below_head[name]
        groups.setdefault((below, -min(parameter.ndim, 2)), []).append(parameter)
    # From the head down, matrices first: the first group has the recipe's own learning rate.
    ordered = [_group(groups[key], recipe, key[0]) for key in sorted(groups)]
    return torch.optim.AdamW(ordered, lr=recipe.learning_rate)


def _group(parameters: list[nn.Parameter], recipe: TrainingRecipe, below: int) -> dict[str, Any]:
    """Return the settings of parameters of one kind, `below` blocks below the head."""
    dimensions = parameters[0].ndim
    decay = recipe.weight_decay if dimensions > 1 else 0.0
    group: dict[str, Any] = {"params": parameters, "weight_decay": decay}
    if dimensions == 0:  # scales of a quantisation-aware model's activations, as logarithms
        group["lr"] = _SCALES_RATE * recipe.learning_rate
    if below:
        group["lr_scale"] = recipe.layer_decay**below
    return group


def freeze(trainee: nn.Module, until: str) -> None:
    """Exclude the weights in front of a stage from training.

    Parameters
    ----------
    trainee : torch.nn.Module
        A `sepvit_edge.training.loop.Trainee`.
    until : str
        ``"stage2"``, ``"stage3"``, ``"stage4"`` or ``"head"``: the first part that is trained;
        empty trains all.
    """
    if not until:
        return
    first = 4 if until == "head" else int(until.removeprefix("stage")) - 1
    for name, parameter in trainee.named_parameters():
        if _place(name)[0] < first:
            parameter.requires_grad_(False)


def head_parameters(trainee: nn.Module) -> set[Tensor]:
    """Return the parameters behind the four stages: the classifier, and a teacher's projector."""
    return {p for name, p in trainee.named_parameters() if "head" in name or "projector" in name}


def _below_head(names: Iterable[str]) -> dict[str, int]:
    """Return how many blocks below the classifier each parameter of a reference model is."""
    places = {name: _place(name) for name in names}
    order = sorted(set(places.values()), reverse=True)
    return {name: order.index(place) for name, place in places.items()}


def _place(name: str) -> tuple[int, int]:
    """Return stage and block of a reference model's parameter; what opens a stage has block 0."""
    found = _PLACE.search(name)
    if not found:
        return _BEHIND
    return int(found[2]), int(found[3]) if found[1] == "blocks" else 0


def create_schedule(optimizer: torch.optim.Optimizer, plan: StepPlan) -> Any:
    """Return a linear rise of the learning rate, then a cosine."""
    from timm.scheduler import CosineLRScheduler

    # It warns that one update has no curve, which is so.
    logging.getLogger("timm.scheduler.cosine_lr").setLevel(logging.ERROR)
    warmup, lowest = plan.warmup_updates, plan.recipe.minimum_learning_rate
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, plan.updates - warmup),
        lr_min=lowest,
        warmup_t=warmup,
        warmup_lr_init=lowest,
        warmup_prefix=True,
        t_in_epochs=False,
    )
