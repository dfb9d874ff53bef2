"""Quantise a checkpoint without training, and see what it costs: `python -m sepvit_edge.quantize`.

Exports calibrate by themselves (`--precision int8`); this is for choosing how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, console, emit_json, print_columns, progress, steps
from .cli.options import Classes

if TYPE_CHECKING:
    from .pipeline.parity import selection_of
    from .pipeline.scales import ScaleChoice
    from .quantization.sensitivity import Sensitivity


@command
def main(
    weights: Annotated[
        str,
        typer.Option(
            help="A checkpoint (FILE::KEY: the weights under a key of it), or the name of a "
            "built-in one. Default: the built-in SepViT-T."
        ),
    ] = "",
    calibration: Annotated[
        str, typer.Option(help="Images to calibrate on: a folder or a built-in set.")
    ] = "",
    data: Annotated[
        str, typer.Option(help="Images to measure on: a folder or a built-in set.")
    ] = "",
    classes: Classes = "",
    images: Annotated[
        int, typer.Option(help="Maximum number of images, taken evenly over the classes.", min=1)
    ] = 64,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Quantise each part alone, in turn.")
    ] = False,
    chart: Annotated[
        Path | None, typer.Option(metavar="PNG", help="With --sensitivity: write a bar chart.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare ways to choose scales, or, with --sensitivity, what each part loses in int8."""
    from .charts import load_pyplot
    from .checkpoints.builtin import default_checkpoint
    from .checkpoints.files import load_checkpoint
    from .cli.choices import choose_data
    from .cli.tables import images_text
    from .data.choose import open_dataset
    from .data.preprocess import preprocess_batch
    from .data.sample import take_evenly
    from .pipeline.defaults import default_calibration, default_data
    from .pipeline.scales import compare_scales
    from .quantization.calibration import calibrate
    from .quantization.sensitivity import draw, scan

    if chart is not None:
        load_pyplot()  # a missing matplotlib fails before the scan, not after it
    model = load_checkpoint(weights or default_checkpoint())
    config = model.config
    held_out = choose_data(data, classes, config.labels) or default_data(model)[0]
    typical = default_calibration(model)
    if calibration:
        typical = open_dataset(calibration, None, "calibration")
    taken = take_evenly(held_out, images)
    samples = [taken[i] for i in range(len(taken))]
    pixels = preprocess_batch([s.image for s in samples], config.preprocessing, config.image_size)
    if not sensitivity:
        with steps() as step:
            labels = [sample.label for sample in samples]
            choices = list(compare_scales(model, typical, pixels, labels, step))
        _print_choices(choices, json)
        if not json:
            console.print(images_text(len(taken), taken.name, selection_of(taken)))
        return
    quantization = model.quantization
    if quantization is None:
        with steps() as step:
            step(f"calibrating on {typical.name}")
            quantization = calibrate(model, typical)
    with progress("parts", None) as advance:
        parts = scan(model, quantization, pixels, advance)
    if chart is not None:
        draw(parts, chart)
    _print_parts(parts, json)
    if not json:
        console.print(images_text(len(taken), taken.name, selection_of(taken)))


def _print_choices(choices: Sequence[ScaleChoice], json: bool) -> None:
    if json:
        emit_json([asdict(choice) for choice in choices])
        return
    rows = [
        [
            choice.scales,
            str(choice.weight_bits),
            f"{choice.sqnr_db:.1f}",
            f"{choice.top1_agreement:.2%}",
            "-" if choice.top1 is None else f"{choice.top1:.2%}",
        ]
        for choice in choices
    ]
    print_columns(["scales by", "bits of weights", "SQNR dB", "agreement", "top-1"], rows)


def _print_parts(parts: Sequence[Sensitivity], json: bool) -> None:
    if json:
        emit_json([asdict(part) for part in parts])
        return
    rows = [[part.part, str(part.layers), f"{part.sqnr_db:.1f}"] for part in parts]
    print_columns(["part alone in int8", "layers", "SQNR dB"], rows)
    worst = min(parts[:-1], key=lambda part: part.sqnr_db)
    console.print(f"{worst.part} loses most; to leave it in float: --keep-float {worst.part}")


if __name__ == "__main__":
    main()
