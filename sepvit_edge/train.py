"""Train SepViT, float or quantisation-aware: `python -m sepvit_edge.train --recipe glyphs`.

On several GPUs or hosts: `accelerate launch -m sepvit_edge.train ...`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from .cli.accuracy_table import print_accuracy
from .cli.console import command, console, emit_json, stderr, step_progress
from .cli.options import Classes

if TYPE_CHECKING:
    from .training.checkpoint import Trained
    from .training.state import Epoch


@command
def main(
    output: Annotated[Path, typer.Option(help="Safetensors file to write.")],
    recipe: Annotated[
        str,
        typer.Option(
            help="imagenet, photos, glyphs, digits, scenes-segmentation, scenes-detection, or a "
            "TOML file. Default: qat with --qat, fine-tune with --weights; the task's own with "
            "--task."
        ),
    ] = "",
    task: Annotated[
        str, typer.Option(help="classification (the default), segmentation or detection.")
    ] = "",
    head: Annotated[
        str, typer.Option(help="With segmentation: semantic-fpn or upernet; detection: retinanet.")
    ] = "",
    input_size: Annotated[
        str,
        typer.Option(help="With segmentation and detection: HEIGHTxWIDTH, as 256x320; or SIDE."),
    ] = "",
    variant: Annotated[str, typer.Option(help="lite, t, s or b.")] = "",
    data: Annotated[
        str,
        typer.Option(
            help="A folder per class, or with train/ and val/ (and test/) that have one; or "
            "digits, or glyphs. Segmentation: a folder with images and masks, or scenes. "
            "Detection: a COCO file, a folder with train.json and val.json, or scenes."
        ),
    ] = "",
    validation: Annotated[
        str, typer.Option(help="Images for the curve and the choice of the best weights.")
    ] = "",
    validation_split: Annotated[
        float | None, typer.Option(help="Share of --data to hold out instead.", min=0, max=0.9)
    ] = None,
    classes: Classes = "",
    epochs: Annotated[int | None, typer.Option(help="Passes through the data.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of epochs.", min=1)] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images per step on each device.", min=1)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    resolution_schedule: Annotated[
        str, typer.Option(help="Image sizes in order, as 96,160,224 or 96:3,224:1.")
    ] = "",
    freeze_until: Annotated[
        str, typer.Option(help="First part to train: stage2, stage3, stage4 or head.")
    ] = "",
    weights: Annotated[
        str,
        typer.Option(
            help="Checkpoint to start from (FILE::KEY: the weights under a key of it); sets "
            "variant and preprocessing. Other classes than its own give it a new classifier."
        ),
    ] = "",
    qat: Annotated[
        bool, typer.Option("--qat", help="Train quantisation-aware, from trained --weights.")
    ] = False,
    teacher: Annotated[
        str, typer.Option(help="Checkpoint to learn from; with --qat, --weights by default.")
    ] = "",
    keep_float: Annotated[
        list[str] | None, typer.Option(help="With --qat: layers to leave in float; repeatable.")
    ] = None,
    scheme: Annotated[
        Literal["layers", "full"],
        typer.Option(help="With --qat: int8 layers, or int8 operations for units without floats."),
    ] = "layers",
    half: Annotated[bool, typer.Option("--half", help="Store float weights as float16.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and augmentation.", min=0)
    ] = None,
    workers: Annotated[int, typer.Option(help="Number of processes that load images.", min=0)] = 1,
    run: Annotated[
        Path | None, typer.Option(help="Folder for state, log and curves; default runs/NAME.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for drawn images; default RUN/cache.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the run's saved state.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Train, report the held-out accuracy, and write the weights and their card.

    The run's folder gets state, log, curves, and the best and the last weights; that of a
    classifier also a contact sheet of augmented images and the confusion matrix.

    Options default to the recipe's values.
    """
    from .cli.names import check_names, parse_input_size
    from .data.dense.choose import check_dense_name
    from .errors import Interrupted
    from .files import check_output_file
    from .training.recipe import (
        check_dense_options,
        check_options,
        load_training_recipe,
        parse_schedule,
    )

    given = {
        "task": task,
        "variant": variant,
        "data": data,
        "validation": validation,
        "validation_split": validation_split,
        "freeze_until": freeze_until,
        "classes": classes,
        "epochs": epochs,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "seed": seed,
        "resolution_schedule": resolution_schedule and parse_schedule(resolution_schedule),
    }
    changes: dict[str, Any] = {
        key: value for key, value in given.items() if value not in ("", None)
    }
    if teacher:
        changes["distillation"] = {"teacher": teacher, "weight": 0.5}
    dense = {"head": head, "input_size": input_size and parse_input_size(input_size)}
    if any(dense.values()):
        changes["dense"] = {key: value for key, value in dense.items() if value}
    default = "qat" if qat else "" if task == "classification" else task
    default = default or ("fine-tune" if weights else "")
    chosen = load_training_recipe(recipe or default, changes)
    dense_task = chosen.task != "classification"
    images = [chosen.data, chosen.validation]
    check_names(
        weights=[weights, teacher],
        data=[] if dense_task else images,
        classes=chosen.classes,
    )
    if dense_task:
        classifiers_only = {
            "--qat": qat,
            "--teacher": teacher,
            "--keep-float": keep_float,
            "--scheme": scheme != "layers",
            "--resolution-schedule": resolution_schedule,
            "--classes": classes,
            "--cache": cache,
        }
        check_dense_options(
            chosen, weights, variant, [name for name, value in classifiers_only.items() if value]
        )
        for name in images:
            check_dense_name(name)
    else:
        check_options(chosen, weights, qat, keep_float or (), scheme)
    check_output_file(output, "--output", ".safetensors")
    from .training.checkpoint import train_checkpoint
    from .training.dense.checkpoint import train_dense_checkpoint

    out = stderr if json else console
    with step_progress("training") as show:

        def report(step: int, steps: int, loss: float) -> None:
            show(step, steps, f"loss {loss:.3f}")

        shared: dict[str, Any] = {
            "weights": weights,
            "half": half,
            "workers": workers,
            "resume": resume,
            "say": lambda sentence: out.print(Text(sentence), soft_wrap=True),
            "report": report,
            "epoch_done": lambda line: out.print(_epoch_text(line), soft_wrap=True),
        }
        folder = run or Path("runs") / output.stem
        try:
            if dense_task:
                card = train_dense_checkpoint(output, chosen, folder, **shared)
                return _print_dense(output, card, json) if card else None
            trained = train_checkpoint(
                output,
                chosen,
                folder,
                variant=variant,
                qat=qat,
                keep_float=keep_float or (),
                scheme=scheme,
                cache=cache,
                **shared,
            )
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; repeat the command with --resume to continue from the saved state"
            ) from None
    if json:
        emit_json(trained.card)
    elif trained.card:
        _print_result(output, trained)


def _print_dense(output: Path, card: dict[str, Any], as_json: bool) -> None:
    """Print the figures on the held-out images, and where the weights are."""
    if as_json:
        return emit_json(card)
    names = {"held_out_miou": "mIoU", "held_out_ap50": "AP50", "held_out_ap": "AP"}
    figures = [f"{name} {card[key]:.2%}" for key, name in names.items() if key in card]
    if figures:
        line = f"{', '.join(figures)} on {card['held_out_images']} images of {card['held_out']}"
        console.print(Text(line), soft_wrap=True)
        if card["held_out_chose_epoch"]:
            console.print(
                "The best epoch was chosen on these images, which flatters it; a test set gives a "
                "figure from images that chose nothing."
            )
    console.print(
        Text(f"{output} is written, after {card['minutes']} minutes of training"), soft_wrap=True
    )


def _print_result(output: Path, trained: Trained) -> None:
    """Print the accuracy on the held-out images, and where the weights are."""
    card = trained.card
    if trained.accuracy is not None:
        print_accuracy(trained.accuracy, f"{output} on {card['held_out']}")
        if card["held_out_chose_epoch"]:
            console.print(
                f"Epoch {card['best_epoch']} was the best on these images, which flatters it; a "
                "test/ folder gives a figure from images that chose nothing."
            )
    console.print(
        Text(f"{output} is written, after {card['minutes']} minutes of training"), soft_wrap=True
    )


def _epoch_text(line: Epoch) -> Text:
    held = "" if line.figure is None else f", validation {line.figure[0]} {line.figure[1]:.2%}"
    return Text(
        f"epoch {line.epoch}, step {line.step}: {line.image_size} px, loss {line.loss:.4f}{held}"
    )


if __name__ == "__main__":
    main()
