"""From a training recipe to a checkpoint and its card."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import torch

from ..checkpoints.files import save_checkpoint
from ..data.choose import BUILT_IN, class_names, open_dataset
from ..data.sample import Dataset
from ..errors import SepViTError
from ..machine import cpu_name
from ..model.reference import SepViT, set_image_size
from .loop import FloatTrainee, evaluate_top1, run_training
from .recipe import TrainingRecipe
from .start import starting_model
from .state import STATE, Epoch, read_state
from .teachers import Teacher, load_teacher


def train_checkpoint(
    output: Path,
    recipe: TrainingRecipe,
    run: Path,
    *,
    weights: str = "",
    variant: str = "",
    qat: bool = False,
    keep_float: Sequence[str] = (),
    weight_bits: int = 8,
    scheme: Literal["layers", "full"] = "layers",
    half: bool = False,
    workers: int = 0,
    cache: Path | None = None,
    resume: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
    report: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    epoch_done: Callable[[Epoch], None] = lambda epoch: None,
) -> dict[str, Any]:
    """Train by a recipe, and write the checkpoint and, beside it, its card.

    Parameters
    ----------
    output : Path
        A ``.safetensors`` file; the card has the same name with ``.json``.
    recipe : TrainingRecipe
        Data, model and training.
    run : Path
        Folder for state, log and curves.
    weights : str
        Checkpoint to start from; it brings variant, classes and preprocessing.
    variant : str
        With `weights`: a wider variant to make of it (`sepvit_edge.training.widen`).
    qat : bool
        Train quantisation-aware, from `weights`.
    keep_float : sequence of str
        With `qat`: patterns of layers to leave in float.
    weight_bits : int
        With `qat`: fewer than 8 shows what fewer bits would cost; they are stored as int8.
    scheme : str
        With `qat`: the rounding to train with, as in a package's recipe
        (`sepvit_edge.config.recipe.QuantizationOptions`).
    half : bool
        Store float weights as float16.
    say : callable
        Gets sentences for the user, such as that the classifier is new.
    workers, cache, resume, report, epoch_done
        See `sepvit_edge.training.loop.run_training`.

    Returns
    -------
    dict
        The card: data, recipe, steps, time, hardware, held-out top-1. Empty in processes other
        than the main one, which writes.

    Raises
    ------
    SepViTError
        On bad input; nothing is written then.
    """
    _check_installed()
    _check_output(output)
    _check_options(recipe, weights, qat, keep_float, weight_bits, scheme)
    teacher = _teacher(recipe, weights if qat else "")
    labels = _classes(recipe, teacher)
    model, recipe = starting_model(recipe, weights, variant, labels, qat, say)
    labels = model.config.labels
    if teacher is not None:
        teacher.meet(model.config)
    validation, held_out = _evaluation_data(recipe, labels)
    if (run / STATE).exists() and not resume:
        raise SepViTError(
            f"{run} holds a run already: give --resume to continue it, or another --run"
        )
    run.mkdir(parents=True, exist_ok=True)
    channels = teacher.channels if teacher is not None and recipe.distillation.features else 0
    trainee: torch.nn.Module = FloatTrainee(model, channels)
    if qat:
        trainee = _quantized_trainee(model, recipe, keep_float, weight_bits, scheme)
    trained = run_training(
        trainee,
        recipe,
        run,
        labels,
        validation,
        teacher=teacher,
        cache=cache,
        workers=workers,
        resume=resume,
        report=report,
        epoch_done=epoch_done,
    )
    from accelerate import PartialState

    if not PartialState().is_main_process:  # one writes; on another host, the state is there
        return {}
    size = recipe.resolution_schedule[-1][0]
    result = trained_model(trained)
    set_image_size(result, size)
    result.config = replace(result.config, labels=labels)
    save_checkpoint(
        result,
        output,
        dtype=torch.float16 if half else torch.float32,
        trained_on=f"{recipe.data}/train" if recipe.data in BUILT_IN else None,
    )
    card = _card(recipe, run)
    if held_out is not None:
        card |= {
            "held_out": held_out.name,
            "held_out_images": len(held_out),
            "held_out_top1": round(evaluate_top1(trained, held_out, recipe, size), 4),
        }
        if qat:  # the float model that it started from
            top1 = evaluate_top1(FloatTrainee(model), held_out, recipe, size)
            card["held_out_top1_float"] = round(top1, 4)
    output.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def _check_installed() -> None:
    """Refuse to start without a library that is needed only later."""
    for name in ("accelerate", "matplotlib", "tensorboard", "timm"):
        if find_spec(name) is None:
            raise SepViTError(f"training needs {name}: pip install 'sepvit-edge[train]'")


def _check_output(output: Path) -> None:
    if output.suffix != ".safetensors":
        raise SepViTError(f"weights are written as .safetensors, not {output.suffix or 'a folder'}")
    if not output.parent.is_dir():
        raise SepViTError(f"there is no folder {output.parent}")


def _check_options(
    recipe: TrainingRecipe,
    weights: str,
    qat: bool,
    keep_float: Sequence[str],
    weight_bits: int,
    scheme: str,
) -> None:
    """Refuse options that do not go together."""
    if not recipe.data:
        raise SepViTError("give the training data by --data: a folder per class, or a built-in set")
    if qat and not weights:
        raise SepViTError("quantisation-aware training starts from trained weights: give --weights")
    if scheme == "full" and (keep_float or weight_bits != 8):
        raise SepViTError(
            "full int8 leaves no layer in float, and has 8 bits: leave --keep-float and "
            "--weight-bits out"
        )
    if scheme == "full" and not qat:
        raise SepViTError("--scheme is for quantisation-aware training: give --qat")
    if recipe.rounding_noise and not qat:
        raise SepViTError("rounding_noise is for quantisation-aware training: give --qat")


def _classes(recipe: TrainingRecipe, teacher: Teacher | None) -> tuple[str, ...]:
    """Return the classes to learn: the data's, or without labels the teacher's."""
    if not recipe.distillation.unlabelled:
        return class_names(recipe.data)
    assert teacher is not None  # unlabelled needs weight 1, and that a teacher
    return teacher.labels


def _evaluation_data(
    recipe: TrainingRecipe, labels: tuple[str, ...]
) -> tuple[Dataset | None, Dataset | None]:
    """Return images for the curve, and images for the final accuracy; neither is trained on."""
    if recipe.data in BUILT_IN:
        return (
            open_dataset(recipe.data, labels, "calibration"),
            open_dataset(recipe.data, labels, "test"),
        )
    if not recipe.validation:
        return None, None
    data = open_dataset(recipe.validation, labels, "test", recipe.classes)
    return data, data


def _teacher(recipe: TrainingRecipe, start: str) -> Teacher | None:
    """Return the teacher if the recipe has one; by default the checkpoint trained from."""
    if not recipe.distillation.weight:
        return None
    name = recipe.distillation.teacher or start
    if not name:
        raise SepViTError("distillation needs a teacher: give its checkpoint by --teacher")
    return load_teacher(name)


def _quantized_trainee(
    model: SepViT,
    recipe: TrainingRecipe,
    keep_float: Sequence[str],
    weight_bits: int,
    scheme: str,
) -> torch.nn.Module:
    """Calibrate a model, and return it with the scheme's rounding in its forward pass."""
    from .full_int8 import FullQuantizedTrainee
    from .quantized import QuantizedTrainee

    images = open_dataset(recipe.data, model.config.labels, "calibration")
    if scheme == "full":
        return FullQuantizedTrainee.calibrated(model, recipe, images)
    return QuantizedTrainee.calibrated(model, recipe, images, keep_float, weight_bits)


def trained_model(trainee: torch.nn.Module) -> SepViT:
    """Return the reference model that a trainee has become.

    Parameters
    ----------
    trainee : torch.nn.Module
        A `sepvit_edge.training.loop.Trainee`.
    """
    if isinstance(trainee, FloatTrainee):
        return trainee.model
    finished: SepViT = cast(Any, trainee).finished()
    return finished


def _card(recipe: TrainingRecipe, run: Path) -> dict[str, Any]:
    """State how a checkpoint was trained."""
    state = read_state(run)
    return {
        "command": _command(sys.argv[1:]),
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "seed": recipe.seed,
        "steps": state["step"],
        "minutes": round(state["seconds"] / 60, 1),
        "hardware": _hardware(),
        "torch": torch.__version__.partition("+")[0],
        "image_size": recipe.resolution_schedule[-1][0],
    }


# Options about places, not about the result.
_PLACES = ("--run", "--cache", "--workers", "--resume")


def _command(arguments: list[str]) -> str:
    """Return the command line without this machine's folders."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument in _PLACES:
            skip = not skip and argument != "--resume"
            continue
        kept.append(Path(argument).name if "/" in argument else argument)
    return shlex.join(["python", "-m", "sepvit_edge.train", *kept])


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{cpu_name() or platform.machine()}, {threads} thread{'s' * (threads > 1)}"
