"""Measure a package on images: `python -m sepvit_edge.evaluate PACKAGE [--data FOLDER]`.

Or everything at once: `python -m sepvit_edge.evaluate --all [--weights CHECKPOINT ...]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import (
    command,
    console,
    emit_json,
    print_columns,
    print_table,
    progress,
    steps,
)

if TYPE_CHECKING:
    from .data.sample import Dataset
    from .model.reference import SepViT
    from .package.folder import Package


@command
def main(
    package: Annotated[Path | None, typer.Argument(help="A package's folder.")] = None,
    data: Annotated[str, typer.Option(help="A folder per class, or a built-in set.")] = "",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="The checkpoint it was made from, found if built in; several with --all."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every runtime and precision of the --weights.")
    ] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="With --all: this runtime only; can be repeated.")
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="With --by-block: what an int8 package was calibrated on.")
    ] = "",
    images: Annotated[int | None, typer.Option(help="At most so many images.", min=1)] = None,
    by_block: Annotated[
        bool, typer.Option("--by-block", help="Compare every part of a tapped twin.")
    ] = False,
    threads: Annotated[
        int, typer.Option(help="Of package and reference; 1 sums alike everywhere.", min=1)
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Top-1 accuracy of a package, and its distance to the fp32 reference."""
    from .cli.tables import parity_rows
    from .config.recipe import parse_recipe
    from .data.choose import open_dataset
    from .errors import SepViTError
    from .model.logits import torch_threads
    from .package.session import open_package
    from .pipeline import parity
    from .pipeline.defaults import default_data
    from .pipeline.lowering import quantization_for
    from .pipeline.verify import reference_of

    if everything:
        _everything(weights or [], data, images, target or [], json)
        return
    if package is None:
        raise SepViTError("name a package, or give --all for every runtime of the built-in weights")
    session = open_package(package, threads)
    model = reference_of(session.package, weights[0] if weights else None)
    dataset, limit = (
        (open_dataset(data, session.package.labels), images)
        if data
        else default_data(model, images)
    )
    if by_block:
        _by_block(session.package, model, dataset, calibration, json)
        return
    count = min(len(dataset), limit or len(dataset))
    # Of a calibrated package the scales are in its own files only.
    facts = session.package.manifest.quantization
    own = facts is not None and facts.trained
    recipe = parse_recipe(session.package.manifest.recipe) if own else None
    quantization = quantization_for(model, recipe) if recipe else None
    with torch_threads(threads), progress(f"running {dataset.name}", count) as advance:
        measured = parity.measure(session, model, dataset, limit, advance, quantization)
    if json:
        emit_json(measured.model_dump(mode="json"))
    else:
        print_table(str(package), parity_rows(measured))


def _everything(
    weights: list[str], data: str, images: int | None, only: list[str], json: bool
) -> None:
    from dataclasses import asdict

    from .checkpoints.builtin import builtin_checkpoints, default_checkpoint
    from .checkpoints.files import load_checkpoint
    from .data.choose import open_dataset
    from .pipeline.comparison import compare_everything
    from .pipeline.defaults import default_data

    names = weights or [default_checkpoint().stem]
    builtin = builtin_checkpoints()
    checkpoints = [(Path(n).stem, load_checkpoint(builtin.get(n, Path(n)))) for n in names]
    model = checkpoints[0][1]
    dataset = open_dataset(data, model.config.labels) if data else default_data(model)[0]
    with steps() as step:
        result = compare_everything(checkpoints, dataset, images=images, only=only, step=step)
    if json:
        emit_json(asdict(result))
        return
    header = ["checkpoint", "runtime", "precision", "MB", "top-1", "difference, 95 % interval"]
    header += ["agreement", "SQNR dB", "to torch int8"]
    rows = []
    for row in result.rows:
        difference = "-"
        if row.difference is not None and row.interval is not None:
            low, high = row.interval
            difference = f"{row.difference:+.2%} ({low:+.2%} to {high:+.2%})"
        rows.append(
            [
                row.checkpoint,
                row.runtime,
                row.precision,
                "-" if row.megabytes is None else f"{row.megabytes:.2f}",
                "-" if row.top1 is None else f"{row.top1:.2%}",
                difference,
                f"{row.agreement:.2%}",
                "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
                "-" if row.sqnr_quantized_db is None else f"{row.sqnr_quantized_db:.1f}",
            ]
        )
    rows += [["", target, sentence] for target, sentence in result.missing.items()]
    print_columns(header, rows)
    first = result.rows[0]
    console.print(
        f"{result.images} images of {result.data}; differences and agreement to "
        f"{first.checkpoint} in {first.runtime} {first.precision}"
    )
    for name, share in result.least_agreement.items():
        console.print(f"{name}: any two runtimes agree on {share:.2%} at least")


def _by_block(
    package: Package, model: SepViT, dataset: Dataset, calibration: str, json: bool
) -> None:
    from dataclasses import asdict

    from .config.recipe import parse_recipe
    from .data.choose import open_dataset
    from .data.preprocess import preprocess
    from .errors import CheckFailed
    from .pipeline import parity
    from .pipeline.twins import run_twin

    manifest = package.manifest
    pixels = preprocess(dataset[0].image, package.preprocessing, manifest.model.image_size)[None]
    with steps() as step:
        step("building and running the tapped twin")
        images = open_dataset(calibration, package.labels, "calibration") if calibration else None
        outputs = run_twin(model, parse_recipe(manifest.recipe), pixels, calibration=images)
        taps = parity.by_block(outputs, model, pixels, manifest.precision)
    if json:
        emit_json([asdict(tap) for tap in taps])
    else:
        header = ["output of", "max abs error", "SQNR", ""]
        print_columns(
            header,
            [
                [t.name, f"{t.max_abs_error:.2g}", f"{t.sqnr_db:.1f} dB", "leaves" * t.leaves]
                for t in taps
            ],
        )
    first = next((tap for tap in taps if tap.leaves), None)
    if first is not None:
        raise CheckFailed(f"{first.name} is the first part that leaves the reference")


if __name__ == "__main__":
    main()
