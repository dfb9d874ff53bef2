"""Train SepViT, float or quantisation-aware: `python -m sepvit_edge.train --recipe glyphs`.

On several GPUs or hosts: `accelerate launch -m sepvit_edge.train ...`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .cli.console import command, console, step_progress
from .cli.options import Classes

if TYPE_CHECKING:
    from .training.state import Epoch


@command
def main(
    output: Annotated[Path, typer.Option(help="Safetensors file to write.")],
    recipe: Annotated[
        str, typer.Option(help="imagenet, glyphs, digits, or a TOML file; with --qat qat.")
    ] = "",
    variant: Annotated[str, typer.Option(help="lite, t, s or b.")] = "",
    data: Annotated[str, typer.Option(help="A folder per class, or digits, or glyphs.")] = "",
    validation: Annotated[
        str, typer.Option(help="Images for the validation curve: a folder per class.")
    ] = "",
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
    weights: Annotated[
        str, typer.Option(help="Checkpoint to start from; sets variant and preprocessing.")
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
    weight_bits: Annotated[
        int, typer.Option(help="With --qat: bits of the weights, for experiments.", min=2, max=8)
    ] = 8,
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
) -> None:
    """Train, report held-out top-1, and write the weights and their card.

    Options default to the recipe's values.
    """
    from .errors import Interrupted
    from .training.checkpoint import train_checkpoint
    from .training.recipe import load_training_recipe, parse_schedule

    given = {
        "variant": variant,
        "data": data,
        "validation": validation,
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
    chosen = load_training_recipe(recipe or ("qat" if qat else ""), changes)
    with step_progress("training") as show:

        def report(step: int, steps: int, loss: float) -> None:
            show(step, steps, f"loss {loss:.3f}")

        try:
            card = train_checkpoint(
                output,
                chosen,
                run or Path("runs") / output.stem,
                weights=weights,
                variant=variant,
                qat=qat,
                keep_float=keep_float or (),
                weight_bits=weight_bits,
                scheme=scheme,
                half=half,
                workers=workers,
                cache=cache,
                resume=resume,
                say=console.print,
                report=report,
                epoch_done=_print_epoch,
            )
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; repeat the command with --resume to continue from the saved state"
            ) from None
    if "held_out_top1" in card:
        console.print(
            f"{output}: top-1 {card['held_out_top1']:.2%} of {card['held_out_images']} held-out "
            f"images, {card['minutes']} minutes"
        )


def _print_epoch(line: Epoch) -> None:
    top1 = line.validation_top1
    held = "" if top1 is None else f", validation top-1 {top1:.2%}"
    console.print(
        f"epoch {line.epoch}, step {line.step}: {line.image_size} px, loss {line.loss:.4f}{held}"
    )


if __name__ == "__main__":
    main()
