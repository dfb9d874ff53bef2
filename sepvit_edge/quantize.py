"""Quantise a checkpoint without training, and see what it costs: `python -m sepvit_edge.quantize`.

Exports calibrate by themselves (`--precision int8`); this is for choosing how.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli.console import command, console, emit_json, print_columns, progress, steps


@command
def main(
    weights: Annotated[
        str, typer.Option(help="A checkpoint, or a built-in one's name; the default one.")
    ] = "",
    calibration: Annotated[
        str, typer.Option(help="Images to calibrate on: a folder or a built-in set.")
    ] = "",
    data: Annotated[
        str, typer.Option(help="Images to measure on: a folder or a built-in set.")
    ] = "",
    images: Annotated[int, typer.Option(help="At most so many of them.", min=1)] = 64,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Quantise each part alone, in turn.")
    ] = False,
    chart: Annotated[
        Path | None, typer.Option(help="With --sensitivity: a PNG of bars to write.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare ways to choose scales, or, with --sensitivity, what each part loses in int8."""
    from dataclasses import asdict

    from .charts import load_pyplot
    from .checkpoints.builtin import default_checkpoint
    from .checkpoints.files import load_checkpoint
    from .data.choose import open_dataset
    from .data.preprocess import preprocess_batch
    from .metrics import sqnr_db
    from .model.logits import reference_logits
    from .pipeline.defaults import default_calibration, default_data
    from .quantization.calibration import METHODS, calibrate
    from .quantization.scheme import LayerQuantization
    from .quantization.sensitivity import draw, scan

    if chart is not None:
        load_pyplot()  # refused now, not after the scan
    model = load_checkpoint(weights or default_checkpoint())
    labels, size = model.config.labels, model.config.image_size
    measured = open_dataset(data, labels) if data else default_data(model)[0]
    typical = (
        open_dataset(calibration, labels, "calibration")
        if calibration
        else default_calibration(model)
    )
    count = min(images, len(measured))
    rule = model.config.preprocessing
    pixels = preprocess_batch([measured[i].image for i in range(count)], rule, size)
    if sensitivity:
        quantization = model.quantization
        if quantization is None:
            with steps() as step:
                step(f"calibrating on {typical.name}")
                quantization = calibrate(model, typical)
        with progress("parts", None) as advance:
            found = scan(model, quantization, pixels, advance)
        if chart is not None:
            draw(found, chart)
        if json:
            emit_json([asdict(part) for part in found])
            return
        header = ["part alone in int8", "layers", "SQNR dB"]
        print_columns(header, [[s.part, str(s.layers), f"{s.sqnr_db:.1f}"] for s in found])
        worst = min(found[:-1], key=lambda part: part.sqnr_db)
        console.print(f"{worst.part} loses most; to leave it in float: --keep-float {worst.part}")
        return
    reference = reference_logits(model, pixels)
    truth = [measured[i].label for i in range(count)]
    rows = []
    with steps() as step:
        for bits in (8, 6, 4, 3):
            for method in METHODS:
                step(f"{method}, weights of {bits} bits")
                quantization = calibrate(model, typical, method=method, weight_bits=bits)
                logits = LayerQuantization(quantization).reference(model)(pixels)
                agreement = float((logits.argmax(1) == reference.argmax(1)).mean())
                top1 = None if None in truth else float((logits.argmax(1) == truth).mean())
                noise = round(sqnr_db(reference, logits), 1)
                rows.append(
                    {
                        "scales": method,
                        "weight_bits": bits,
                        "sqnr_db": noise,
                        "top1_agreement": agreement,
                        "top1": top1,
                    }
                )
    if json:
        emit_json(rows)
        return
    print_columns(
        ["scales by", "bits of weights", "SQNR dB", "agreement", "top-1"],
        [
            [
                str(row["scales"]),
                str(row["weight_bits"]),
                f"{row['sqnr_db']:.1f}",
                f"{row['top1_agreement']:.2%}",
                "-" if row["top1"] is None else f"{row['top1']:.2%}",
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
