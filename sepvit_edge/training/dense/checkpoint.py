"""From a training recipe to a dense checkpoint and its card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...data.dense.choose import DENSE_BUILT_IN
from ...data.dense.sample import DenseDataset
from ...files import check_output_file
from ...model.dense import DenseModel
from ...scoring.detection import check_installed as check_scoring
from ..card import training_card, write_trained
from ..checkpoint import check_installed
from ..recipe import TrainingRecipe, check_dense_options
from ..state import Epoch, check_run
from .figure import measure_detection, measure_segmentation
from .images import DenseImages
from .loop import run_dense_training
from .sets import open_dense_sets, with_dense_splits
from .start import starting_dense_model


def train_dense_checkpoint(
    output: Path,
    recipe: TrainingRecipe,
    run: Path,
    *,
    weights: str = "",
    half: bool = False,
    workers: int = 0,
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
        Task, data, model and training.
    run : Path
        Folder for state, log and curves.
    weights : str
        Checkpoint to start from, of a classifier or of a dense model.
    half : bool
        Store weights as float16.
    say : callable
        Gets sentences for the user.
    workers, resume, report, epoch_done
        See `sepvit_edge.training.loop.run_training`.

    Returns
    -------
    dict
        The card. Empty in processes other than the main one, which writes.

    Raises
    ------
    SepViTError
        On bad input; nothing is written then.
    """
    check_installed()
    if recipe.task == "detection":
        check_scoring()
    check_output_file(output, "--output", ".safetensors")
    check_dense_options(recipe, weights, "", ())
    check_run(run, resume)
    recipe = with_dense_splits(recipe)
    sets = open_dense_sets(recipe, say)
    images = DenseImages(recipe, sets.train)
    model, recipe = starting_dense_model(recipe, weights, sets.labels, images, say)
    run.mkdir(parents=True, exist_ok=True)
    trained = run_dense_training(
        model,
        recipe,
        run,
        images,
        sets.validation,
        workers=workers,
        resume=resume,
        report=report,
        epoch_done=epoch_done,
    )
    from accelerate import PartialState

    if not PartialState().is_main_process:  # one writes; on another host, the state is there
        return {}
    card = training_card(recipe, run) | {"image_size": list(recipe.dense.input_size)}
    if sets.test is not None:
        card |= held_out(trained, sets.test) | {
            "held_out_chose_epoch": sets.test is sets.validation
        }
    trained_on = f"{recipe.data}/train" if recipe.data in DENSE_BUILT_IN else None
    write_trained(trained, output, card, trained_on, half)
    return card


def held_out(model: DenseModel, data: DenseDataset) -> dict[str, Any]:
    """Measure a model on test images, for its card."""
    facts: dict[str, Any] = {"held_out": data.name, "held_out_images": len(data)}
    if model.config.task == "segmentation":
        counts = measure_segmentation(model, data)
        ious = zip(counts.labels, counts.ious.tolist(), strict=True)
        return facts | {
            "held_out_miou": round(counts.mean_iou, 4),
            "held_out_pixel_accuracy": round(counts.accuracy, 4),
            "iou_by_class": {name: round(iou, 4) for name, iou in ious if iou == iou},
        }
    precision = measure_detection(model, data)
    return facts | {
        "held_out_ap": round(precision.ap, 4),
        "held_out_ap50": round(precision.ap50, 4),
        "ap50_by_class": {name: round(ap, 4) for name, ap in precision.by_class.items()},
    }
