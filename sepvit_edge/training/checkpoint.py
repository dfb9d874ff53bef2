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

from ..checkpoints.files import load_checkpoint, save_checkpoint
from ..data.choose import BUILT_IN, class_names, open_dataset
from ..data.sample import Dataset
from ..errors import SepViTError
from ..machine import cpu_name
from ..model.reference import SepViT, create_model, set_image_size
from ..model.variants import find_variant
from .data import rule_of
from .loop import FloatTrainee, evaluate_top1, run_training
from .recipe import TrainingRecipe
from .state import STATE, Epoch, read_state
from .widen import widen


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
    model, recipe = _starting_model(recipe, weights, variant)
    labels = model.config.labels
    validation, held_out = _evaluation_data(recipe, labels)
    teacher = _teacher(recipe, weights if qat else "", labels)
    if (run / STATE).exists() and not resume:
        raise SepViTError(
            f"{run} holds a run already: give --resume to continue it, or another --run"
        )
    run.mkdir(parents=True, exist_ok=True)
    trainee: torch.nn.Module = FloatTrainee(model)
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


def _starting_model(
    recipe: TrainingRecipe, weights: str, variant: str
) -> tuple[SepViT, TrainingRecipe]:
    """Return the model to train, and the recipe with what the model decides.

    With `weights` the checkpoint decides variant and preprocessing, and the image size unless the
    recipe states one. Otherwise the weights are drawn from the recipe's seed.
    """
    if not weights:
        labels = class_names(recipe.data)
        drop_path = recipe.drop_path
        torch.manual_seed(recipe.seed)
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
    if variant and find_variant(variant).key != model.config.variant:
        model = widen(model, variant, recipe.seed)
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


def _teacher(recipe: TrainingRecipe, start: str, labels: tuple[str, ...]) -> SepViT | None:
    """Return the teacher if the recipe has one; by default the checkpoint trained from."""
    if not recipe.distillation.weight:
        return None
    name = recipe.distillation.teacher or start
    if not name:
        raise SepViTError("distillation needs a teacher: give its checkpoint by --teacher")
    return load_checkpoint(name, labels=labels)


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
