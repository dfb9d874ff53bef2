"""Saved state of a training run: all that it needs to go on as if it had not stopped."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import SepViTError
from .recipe import TrainingRecipe

STATE, HISTORY = "state.pt", "history.json"


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history.

    Attributes
    ----------
    epoch, step : int
        Number of the epoch, and of its last step, counted from 1.
    image_size : int
        Side of its last images.
    learning_rate, loss : float
        Rate at its end; mean loss over its steps.
    validation_top1 : float or None
        Accuracy, 0..1, of the weights that would be saved.
    """

    epoch: int
    step: int
    image_size: int
    learning_rate: float
    loss: float
    validation_top1: float | None


@dataclass
class Progress:
    """How far a run is, apart from its weights.

    Attributes
    ----------
    step : int
        Number of steps done.
    loss_sum : float
        Sum of the losses in the current epoch.
    seconds : float
        Time spent so far.
    history : list of Epoch
        Epochs done.
    """

    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)


def save_state(
    run: Path,
    recipe: TrainingRecipe,
    progress: Progress,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: Any,
) -> None:
    """Replace a run's state in one go: a process that is killed leaves the old one or the new one.

    Parameters
    ----------
    run : Path
        Folder of the run.
    recipe : TrainingRecipe
        Recipe of the run, to compare with on resuming.
    progress : Progress
        How far it is.
    model : torch.nn.Module
        Model under training.
    average : torch.nn.Module, optional
        Moving average of its weights.
    optimizer : torch.optim.Optimizer
        Optimizer, with its moments.
    """
    state = {
        "recipe": recipe.model_dump_json(),
        "step": progress.step,
        "model": model.state_dict(),
        "ema": None if average is None else average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [vars(line) for line in progress.history],
        "total": progress.loss_sum,
        "seconds": progress.seconds,
    }
    temporary = run / f".{STATE}"
    torch.save(state, temporary)
    os.replace(temporary, run / STATE)
    temporary = run / f".{HISTORY}"
    temporary.write_text(json.dumps(state["history"], indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, run / HISTORY)


def restore_state(
    run: Path,
    recipe: TrainingRecipe,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: Any,
) -> Progress:
    """Load a run's state into model, moving average and optimizer.

    Returns
    -------
    Progress
        How far the run was.

    Raises
    ------
    SepViTError
        If there is no state, or it belongs to another recipe.
    """
    state = read_state(run)
    then = TrainingRecipe.model_validate_json(state["recipe"])
    for key in TrainingRecipe.model_fields:
        if getattr(then, key) != getattr(recipe, key):
            raise SepViTError(
                f"the run in {run} was started with {key} = {getattr(then, key)}, "
                f"not {getattr(recipe, key)}; resume it with the same options, or start another "
                "with --run"
            )
    model.load_state_dict(state["model"])
    if average is not None:
        average.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    history = [Epoch(**line) for line in state["history"]]
    return Progress(state["step"], state["total"], state["seconds"], history)


def read_state(run: Path) -> dict[str, Any]:
    """Read a run's state.

    Raises
    ------
    SepViTError
        If there is none.
    """
    path = run / STATE
    if not path.exists():
        raise SepViTError(f"there is no saved state in {run}; leave --resume out")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
