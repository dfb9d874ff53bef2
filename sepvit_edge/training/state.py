"""Saved state of a training run: all that it needs to go on as if it had not stopped."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ..config.toml import first_fault
from ..errors import SepViTError, reason_of
from ..files import replacing_file
from .recipe import TrainingRecipe

STATE, HISTORY, BEST = "state.pt", "history.json", "best.pt"
# What torch and pickle raise for a file that is cut, overwritten, or something else.
_UNREADABLE = (RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError)


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
    validation_top1, validation_miou, validation_ap50 : float or None
        Accuracy, 0..1, of the weights that would be saved; mean IoU in segmentation; AP50 in
        detection. One of them at most.
    """

    epoch: int
    step: int
    image_size: int
    learning_rate: float
    loss: float
    validation_top1: float | None = None
    validation_miou: float | None = None
    validation_ap50: float | None = None

    @property
    def figure(self) -> tuple[str, float] | None:
        """The validation figure and its name, if there is one."""
        figures = {
            "top-1": self.validation_top1,
            "mIoU": self.validation_miou,
            "AP50": self.validation_ap50,
        }
        return next(((name, value) for name, value in figures.items() if value is not None), None)


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


@dataclass(frozen=True)
class Setting:
    """What a run's curve depends on besides its recipe.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    images : int
        Number of training images.
    devices : int
        Number of devices that share a step.
    rounding : str
        Rounding that is trained with; see `sepvit_edge.training.loop.Trainee`.
    teacher_sha256 : str
        Digest of the teacher's weights; empty without a teacher.
    """

    classes: tuple[str, ...]
    images: int
    devices: int
    rounding: str
    teacher_sha256: str


def check_run(run: Path, resume: bool) -> None:
    """Refuse to train anew over a run that is there.

    Raises
    ------
    SepViTError
        If it is there and is not to be continued.
    """
    if (run / STATE).exists() and not resume:
        raise SepViTError(
            f"{run} holds a run already: give --resume to continue it, or another --run"
        )


def best_epoch(history: list[Epoch]) -> Epoch | None:
    """Return the epoch with the best validation figure, the first of equals; None without any.

    Epochs at smaller images than the last one's do not count: their weights fit another size.
    """
    measured = [
        line
        for line in history
        if line.figure is not None and line.image_size == history[-1].image_size
    ]
    return max(measured, key=lambda line: line.figure[1] if line.figure else 0.0, default=None)


def is_stuck(history: list[Epoch], patience: float, epochs: int) -> bool:
    """Return whether the validation figure has not improved for a share of the run.

    Parameters
    ----------
    history : list of Epoch
        Epochs done.
    patience : float
        The share; 0 waits for ever.
    epochs : int
        Length of the run.
    """
    best = best_epoch(history)
    if not patience or best is None:
        return False
    return history[-1].epoch - best.epoch >= max(1, round(patience * epochs))


def save_best(run: Path, result: nn.Module) -> None:
    """Keep the best weights so far."""
    with replacing_file(run / BEST) as partial:
        torch.save(result.state_dict(), partial)


def load_best(run: Path, result: nn.Module) -> None:
    """Load the best weights into a model.

    Raises
    ------
    SepViTError
        If they are missing or damaged, or another model's.
    """
    try:
        result.load_state_dict(_read(run / BEST))
    except (*_UNREADABLE, AttributeError) as error:
        raise _damaged(run / BEST, error) from None


def save_state(
    run: Path,
    recipe: TrainingRecipe,
    setting: Setting,
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
    setting : Setting
        What to compare besides.
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
        "setting": asdict(setting),
        "step": progress.step,
        "model": model.state_dict(),
        "ema": None if average is None else average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [vars(line) for line in progress.history],
        "total": progress.loss_sum,
        "seconds": progress.seconds,
    }
    with replacing_file(run / STATE) as partial:
        torch.save(state, partial)
    with replacing_file(run / HISTORY) as partial:
        partial.write_text(json.dumps(state["history"], indent=1) + "\n", encoding="utf-8")


def restore_state(
    run: Path,
    recipe: TrainingRecipe,
    setting: Setting,
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
        If there is no state, it is damaged, or it belongs to another recipe, setting or model.
    """
    state = read_state(run)
    try:
        _same_recipe(run, state["recipe"], recipe)
        # States of earlier versions hold no setting.
        _same_setting(run, state.get("setting", {}), setting)
        _same_model(run, state["model"], model)
        model.load_state_dict(state["model"])
        if average is not None:
            average.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        history = [Epoch(**line) for line in state["history"]]
        step = int(state["step"])
        if step < 0:
            raise ValueError(f"step {step}")
        return Progress(step, float(state["total"]), float(state["seconds"]), history)
    except (*_UNREADABLE, AttributeError) as error:
        raise _damaged(run / STATE, error) from None


def _same_recipe(run: Path, stored: str, recipe: TrainingRecipe) -> None:
    """Refuse to go on by another recipe than the run was started with."""
    try:
        then = TrainingRecipe.model_validate_json(stored)
    except ValidationError as error:
        raise SepViTError(
            f"the run in {run} was started by another version of sepvit-edge: its recipe has "
            f"{first_fault(error)}; finish it with that version, or start another with --run"
        ) from None
    for key in TrainingRecipe.model_fields:
        if getattr(then, key) != getattr(recipe, key):
            raise _other(run, f"{key} = {getattr(then, key)}", str(getattr(recipe, key)))


def _same_setting(run: Path, stored: Mapping[str, Any], now: Setting) -> None:
    """Refuse to go on with other data, devices, rounding or teacher."""
    for key, value in asdict(now).items():
        then = stored.get(key, value)
        if key == "classes" and len(then) == len(value):
            pairs = zip(then, value, strict=True)
            then, value = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
        elif key == "classes":
            then, value = len(then), len(value)
        if then != value:
            raise _other(run, f"{key} = {then or 'none'}", value or "none")


def _same_model(run: Path, stored: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse to load the weights of another model."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in stored.items()}
    key = next((k for k in (*wanted, *found) if wanted.get(k) != found.get(k)), None)
    if key is not None:
        then, value = (shapes.get(key, "no such tensor") for shapes in (found, wanted))
        raise _other(run, f"another model ({key}: {then})", value)


def _other(run: Path, then: str, now: object) -> SepViTError:
    return SepViTError(
        f"the run in {run} was started with {then}, not {now}; resume it with the same options and "
        "data, or start another with --run"
    )


def read_state(run: Path) -> dict[str, Any]:
    """Read a run's state.

    Raises
    ------
    SepViTError
        If there is none, or it is damaged.
    """
    state = _read(run / STATE)
    if not isinstance(state, dict) or not {"recipe", "step", "model", "optimizer"} <= state.keys():
        raise SepViTError(
            f"{run / STATE} is not the saved state of a run; start another with --run"
        )
    return state


def _read(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch ignores the checksums
        if broken:
            raise ValueError(f"the checksum of {broken} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SepViTError(
            f"there is no saved state in {path.parent} ({path.name}); leave --resume out"
        ) from None
    except IsADirectoryError:
        raise SepViTError(f"{path} is a folder, not a file of a run") from None
    except PermissionError:
        raise
    except Exception as error:  # the reader of pickles raises IndexError, struct.error, ...
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> SepViTError:
    return SepViTError(
        f"{path} is damaged ({reason_of(error)}); start another run with --run, or put a copy of "
        "the file in its place"
    )
