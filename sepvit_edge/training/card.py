"""The card of a checkpoint: how it was trained, and how accurate it is."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.files import save_checkpoint
from ..files import replacing_file
from ..machine import cpu_name
from ..model.create import ReferenceModel
from .recipe import TrainingRecipe
from .state import Epoch, best_epoch, read_state


def training_card(recipe: TrainingRecipe, run: Path) -> dict[str, Any]:
    """Return how a checkpoint was trained: command, recipe, steps, time and hardware.

    Parameters
    ----------
    recipe : TrainingRecipe
        The recipe.
    run : Path
        Folder of the finished run.
    """
    state = read_state(run)
    best = best_epoch([Epoch(**line) for line in state["history"]])
    return {
        "command": _command(sys.argv[1:]),
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "seed": recipe.seed,
        "steps": state["step"],
        "best_epoch": None if best is None else best.epoch,
        "minutes": round(state["seconds"] / 60, 1),
        "hardware": _hardware(),
        "torch": torch.__version__.partition("+")[0],
        "image_size": recipe.resolution_schedule[-1][0],
    }


def write_trained(
    model: ReferenceModel, output: Path, card: dict[str, Any], trained_on: str | None, half: bool
) -> None:
    """Write a trained model's checkpoint and, beside it, its card.

    Parameters
    ----------
    model : SepViT or DenseModel
        The result.
    output : Path
        A ``.safetensors`` file; the card has the same name with ``.json``.
    card : dict
        The card, as JSON.
    trained_on : str or None
        Built-in data that it was trained on.
    half : bool
        Whether to store float weights as float16.
    """
    dtype = torch.float16 if half else torch.float32
    save_checkpoint(model, output, dtype=dtype, trained_on=trained_on)
    with replacing_file(output.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


# Options about places and output, not about the result; the flags among them take no value.
_PLACES = ("--run", "--cache", "--workers")
_FLAGS = ("--resume", "--json")


def _command(arguments: list[str]) -> str:
    """Return the command line without this machine's folders."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument in _FLAGS:
            skip = False
        elif argument in _PLACES:
            skip = True
        else:
            kept.append(Path(argument).name if "/" in argument else argument)
    return shlex.join(["python", "-m", "sepvit_edge.train", *kept])


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{cpu_name() or platform.machine()}, {threads} thread{'s' * (threads > 1)}"
