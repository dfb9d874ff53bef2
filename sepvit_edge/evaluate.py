"""Measure a package on images: `python -m sepvit_edge.evaluate PACKAGE [--data FOLDER]`.

Or everything at once: `python -m sepvit_edge.evaluate --all [--weights CHECKPOINT ...]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, console, emit_json, print_columns, print_table, progress, steps
from .cli.options import Classes
from .errors import CheckFailed, SepViTError

if TYPE_CHECKING:
    from .data.sample import Dataset
    from .model.reference import SepViT
    from .package.folder import Package
    from .pipeline.comparison import Comparison
    from .pipeline.taps import TapDistance


@command
def main(
    package: Annotated[Path | None, typer.Argument(help="Folder of a package.")] = None,
    data: Annotated[
        str, typer.Option(help="Images: one folder per class, or a built-in set.")
    ] = "",
    classes: Classes = "",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint of the package (FILE::KEY: the weights under a key of it); found by "
            "itself if built in. Repeatable with --all."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every runtime and precision of the --weights.")
    ] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="With --all: this runtime only; repeatable.")
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="With --by-block: calibration images of an int8 package.")
    ] = "",
    images: Annotated[
        int | None,
        typer.Option(help="Maximum number of images, taken evenly over the classes.", min=1),
    ] = None,
    by_block: Annotated[
        bool, typer.Option("--by-block", help="Compare the output of every part of the network.")
    ] = False,
    threads: Annotated[
        int, typer.Option(help="Threads; 1 gives the same result on any number of cores.", min=1)
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure a package's top-1 accuracy and its distance to the fp32 reference."""
    from .cli.choices import choose_data
    from .cli.tables import parity_rows
    from .config.recipe import parse_recipe
    from .model.logits import torch_threads
    from .package.session import open_package
    from .pipeline.defaults import default_data
    from .pipeline.lowering import quantization_for
    from .pipeline.parity import measure_parity
    from .pipeline.verify import reference_of

    if everything:
        if package is not None:
            raise SepViTError(f"--all exports the --weights anew; leave {package} out")
        _evaluate_all(weights or [], data, classes, images, target or [], json)
        return
    if package is None:
        raise SepViTError("name a package, or give --all for every runtime of the built-in weights")
    if weights and len(weights) > 1:
        raise SepViTError("a package has one checkpoint: give --weights once, or --all for several")
    session = open_package(package, threads)
    model = reference_of(session.package, weights[0] if weights else None)
    dataset, limit = choose_data(data, classes, session.package.labels), images
    if dataset is None:
        dataset, limit = default_data(model, images)
    if by_block:
        _evaluate_by_block(session.package, model, dataset, calibration, json)
        return
    # The scales of a calibrated package are in its own files only.
    facts = session.package.manifest.quantization
    trained = facts is not None and facts.trained
    quantization = None
    if trained:
        quantization = quantization_for(model, parse_recipe(session.package.manifest.recipe))
    count = min(len(dataset), limit or len(dataset))
    with torch_threads(threads), progress(f"running {dataset.name}", count) as advance:
        measured = measure_parity(session, model, dataset, limit, advance, quantization)
    if json:
        emit_json(measured.model_dump(mode="json"))
    else:
        print_table(str(package), parity_rows(measured))


def _evaluate_all(
    weights: Sequence[str],
    data: str,
    classes: str,
    images: int | None,
    only: Sequence[str],
    json: bool,
) -> None:
    from .checkpoints.builtin import builtin_checkpoints, default_checkpoint
    from .checkpoints.files import load_checkpoint
    from .cli.choices import choose_data
    from .pipeline.comparison import compare_everything
    from .pipeline.defaults import default_data

    names = weights or [default_checkpoint().stem]
    builtin = builtin_checkpoints()
    checkpoints = [(Path(n).stem, load_checkpoint(builtin.get(n, Path(n)))) for n in names]
    model = checkpoints[0][1]
    dataset = choose_data(data, classes, model.config.labels) or default_data(model)[0]
    with steps() as step:
        result = compare_everything(checkpoints, dataset, images=images, only=only, step=step)
    if json:
        emit_json(asdict(result))
    else:
        _print_comparison(result)


def _print_comparison(result: Comparison) -> None:
    from .cli.tables import COMPARISON_HEADER, comparison_row, images_text
    from .package.manifest import Selection

    selection = Selection.model_validate(result.selection)
    rows = [comparison_row(row) for row in result.rows]
    rows += [["", target, sentence] for target, sentence in result.missing.items()]
    print_columns(COMPARISON_HEADER, rows)
    first = result.rows[0]
    console.print(
        f"{images_text(result.images, result.data, selection)}; differences and agreement to "
        f"{first.checkpoint} in {first.runtime} {first.precision}",
        markup=False,
    )
    for name, share in result.least_agreement.items():
        console.print(f"{name}: any two runtimes agree on at least {share:.2%}", markup=False)


def _evaluate_by_block(
    package: Package, model: SepViT, dataset: Dataset, calibration: str, json: bool
) -> None:
    from .config.recipe import parse_recipe
    from .data.choose import open_dataset
    from .data.preprocess import preprocess_batch
    from .pipeline.parity import LEAST_SQNR_DB
    from .pipeline.taps import by_block
    from .pipeline.twins import run_twin

    manifest = package.manifest
    size = manifest.model.image_size
    pixels = preprocess_batch([dataset[0].image], package.preprocessing, size)
    with steps() as step:
        step("building and running the tapped twin")
        images = open_dataset(calibration, None, "calibration") if calibration else None
        outputs = run_twin(model, parse_recipe(manifest.recipe), pixels, calibration=images)
        taps = by_block(outputs, model, pixels, manifest.precision)
    if json:
        emit_json([asdict(tap) for tap in taps])
    else:
        _print_taps(taps)
    first = next((tap for tap in taps if tap.leaves), None)
    if first is not None:
        raise CheckFailed(
            f"{first.name} is the first part that is too far from the reference: its SQNR is "
            f"{first.sqnr_db:.1f} dB, at least {LEAST_SQNR_DB[manifest.precision]:g} dB expected "
            f"for {manifest.precision}"
        )


def _print_taps(taps: Sequence[TapDistance]) -> None:
    rows = [
        [tap.name, f"{tap.max_abs_error:.2g}", f"{tap.sqnr_db:.1f} dB", "too far" * tap.leaves]
        for tap in taps
    ]
    print_columns(["output of", "max abs error", "SQNR", ""], rows)


if __name__ == "__main__":
    main()
