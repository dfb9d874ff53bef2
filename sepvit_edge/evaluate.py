"""Measure a package on images: `python -m sepvit_edge.evaluate PACKAGE [--data FOLDER]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import (
    command,
    emit_json,
    parity_rows,
    print_columns,
    print_table,
    progress,
    steps,
)

if TYPE_CHECKING:
    from .data import Dataset
    from .package import Package
    from .reference import SepViT


@command
def main(
    package: Annotated[Path, typer.Argument(help="A package's folder.")],
    data: Annotated[str, typer.Option(help="A folder per class, or a built-in set.")] = "",
    weights: Annotated[
        str, typer.Option(help="The checkpoint it was made from; found if built in.")
    ] = "",
    images: Annotated[int, typer.Option(help="At most so many images.")] = 0,
    by_block: Annotated[
        bool, typer.Option("--by-block", help="Compare every part of a tapped twin.")
    ] = False,
    threads: Annotated[
        int, typer.Option(help="Of package and reference; 1 sums alike everywhere.", min=1)
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Top-1 accuracy of a package, and its distance to the fp32 reference."""
    from . import parity
    from .build import default_data, reference_of
    from .data import open_dataset
    from .package import open_package

    session = open_package(package, threads)
    model = reference_of(session.package, weights or None)
    dataset, limit = (
        (open_dataset(data, session.package.labels), images or None)
        if data
        else default_data(model, images or None)
    )
    if by_block:
        _by_block(session.package, model, dataset, json)
        return
    count = min(len(dataset), limit or len(dataset))
    with parity.torch_threads(threads), progress(f"running {dataset.name}", count) as advance:
        measured = parity.measure(session, model, dataset, limit, advance)
    if json:
        emit_json(measured.model_dump(mode="json"))
    else:
        print_table(str(package), parity_rows(measured))


def _by_block(package: Package, model: SepViT, dataset: Dataset, json: bool) -> None:
    from dataclasses import asdict

    from . import parity
    from .build import run_twin
    from .data import preprocess
    from .errors import CheckFailed

    manifest = package.manifest
    pixels = preprocess(dataset[0].image, package.preprocessing, manifest.model.image_size)[None]
    with steps() as step:
        step("building and running the tapped twin")
        outputs = run_twin(model, manifest.recipe, pixels)
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
