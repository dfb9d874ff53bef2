"""From a training recipe to a checkpoint and its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import torch

from ..accuracy import AccuracyReport, accuracy_report, draw_confusion
from ..data.choose import BUILT_IN, class_names
from ..data.sample import Dataset
from ..errors import SepViTError
from ..files import check_output_file
from ..model.reference import SepViT, set_image_size
from .card import training_card, write_trained
from .data import TrainingImages
from .loop import FloatTrainee, Trainee, evaluate_logits, run_training
from .recipe import TrainingRecipe, check_options
from .sets import Sets, open_sets, with_splits
from .start import starting_model
from .state import Epoch, check_run
from .teachers import Teacher, load_teacher

CONFUSION = "confusion.png"


@dataclass(frozen=True)
class Trained:
    """Result of a training run.

    Attributes
    ----------
    card : dict
        Data, recipe, steps, time, hardware and held-out accuracy.
    accuracy : AccuracyReport or None
        Accuracy on the held-out images, if there are any.
    """

    card: dict[str, Any]
    accuracy: AccuracyReport | None


def train_checkpoint(
    output: Path,
    recipe: TrainingRecipe,
    run: Path,
    *,
    weights: str = "",
    variant: str = "",
    qat: bool = False,
    keep_float: Sequence[str] = (),
    scheme: Literal["layers", "full"] = "layers",
    half: bool = False,
    workers: int = 0,
    cache: Path | None = None,
    resume: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
    report: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    epoch_done: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
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
    Trained
        The card and the accuracy. Both empty in processes other than the main one, which writes.

    Raises
    ------
    SepViTError
        On bad input; nothing is written then.
    """
    check_installed()
    check_output_file(output, "--output", ".safetensors")
    check_options(recipe, weights, qat, keep_float, scheme)
    check_run(run, resume)
    recipe = with_splits(recipe)
    teacher = _teacher(recipe, weights if qat else "")
    labels = _classes(recipe, teacher)
    model, recipe = starting_model(recipe, weights, variant, labels, qat, say)
    labels = model.config.labels
    if teacher is not None:
        teacher.meet(model.config)
    sets = open_sets(recipe, labels, say)
    images = TrainingImages(recipe, labels, sets.train, cache or run / "cache")
    run.mkdir(parents=True, exist_ok=True)
    channels = teacher.channels if teacher is not None and recipe.distillation.features else ()
    trainee: torch.nn.Module = FloatTrainee(model, channels)
    if qat:
        trainee = _quantized_trainee(model, recipe, sets.calibration, keep_float, scheme)
    trained = run_training(
        trainee,
        recipe,
        run,
        images,
        sets.validation,
        teacher=teacher,
        workers=workers,
        resume=resume,
        report=report,
        epoch_done=epoch_done,
    )
    from accelerate import PartialState

    if not PartialState().is_main_process:  # one writes; on another host, the state is there
        return Trained({}, None)
    card = training_card(recipe, run)
    accuracy = None
    if sets.test is not None:
        accuracy = _measure(trained, sets, recipe, labels)
        draw_confusion(accuracy, run / CONFUSION, output.stem)
        card |= _held_out(sets, recipe, accuracy)
        if qat:  # the float model that it started from
            start = _measure(FloatTrainee(model), sets, recipe, labels)
            card["held_out_top1_float"] = round(start.top1, 4)
    result = _finished(trained, recipe, labels)
    trained_on = f"{recipe.data}/train" if recipe.data in BUILT_IN else None
    write_trained(result, output, card, trained_on, half)
    return Trained(card, accuracy)


def _measure(
    trainee: torch.nn.Module, sets: Sets, recipe: TrainingRecipe, labels: tuple[str, ...]
) -> AccuracyReport:
    """Measure a trainee on the test images."""
    assert sets.test is not None
    size = recipe.resolution_schedule[-1][0]
    cast(Trainee, trainee).set_image_size(size)
    logits, truth = evaluate_logits(trainee.eval(), sets.test, recipe, size)
    return accuracy_report(logits, truth, labels)


def _held_out(sets: Sets, recipe: TrainingRecipe, accuracy: AccuracyReport) -> dict[str, Any]:
    """State the accuracy on the card, and whether the same images chose the best epoch."""
    assert sets.test is not None
    return {
        "held_out": sets.test.name,
        "held_out_images": len(sets.test),
        "held_out_chose_epoch": sets.test is sets.validation,
        "held_out_top1": round(accuracy.top1, 4),
        "accuracy": accuracy.to_json(),
    }


def _finished(trained: torch.nn.Module, recipe: TrainingRecipe, labels: tuple[str, ...]) -> SepViT:
    """Return the reference model to save."""
    result = trained_model(trained)
    set_image_size(result, recipe.resolution_schedule[-1][0])
    result.config = replace(result.config, labels=labels)
    return result


def check_installed() -> None:
    """Refuse to start without a library that is needed only later."""
    for name in ("accelerate", "matplotlib", "tensorboard", "timm"):
        if find_spec(name) is None:
            raise SepViTError(f"training needs {name}: pip install 'sepvit-edge[train]'")


def _classes(recipe: TrainingRecipe, teacher: Teacher | None) -> tuple[str, ...]:
    """Return the classes to learn: the data's, or without labels the teacher's."""
    if not recipe.distillation.unlabelled:
        return class_names(recipe.data)
    assert teacher is not None  # unlabelled needs weight 1, and that a teacher
    return teacher.labels


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
    images: Dataset,
    keep_float: Sequence[str],
    scheme: str,
) -> torch.nn.Module:
    """Calibrate a model, and return it with the scheme's rounding in its forward pass."""
    from .full_int8 import FullQuantizedTrainee
    from .quantized import QuantizedTrainee

    if scheme == "full":
        return FullQuantizedTrainee.calibrated(model, recipe, images)
    return QuantizedTrainee.calibrated(model, recipe, images, keep_float)


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
