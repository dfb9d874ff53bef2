"""Measure a package on images: `python -m sepvit_edge.evaluate PACKAGE [--data FOLDER]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import command, emit_json, parity_rows, print_table, progress


@command
def main(
    package: Annotated[Path, typer.Argument(help="A package's folder.")],
    data: Annotated[str, typer.Option(help="A folder per class, or a built-in set.")] = "",
    weights: Annotated[
        str, typer.Option(help="The checkpoint it was made from; found if built in.")
    ] = "",
    images: Annotated[int, typer.Option(help="At most so many images.")] = 0,
    threads: Annotated[int, typer.Option(help="Of the runtime; its own choice if 0.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Top-1 accuracy of a package, and its distance to the fp32 reference."""
    from . import parity
    from .build import default_data, reference_of
    from .data import open_dataset
    from .package import open_package

    session = open_package(package, threads or None)
    model = reference_of(session.package, weights or None)
    dataset, limit = (
        (open_dataset(data, session.package.labels), images or None)
        if data
        else default_data(model, images or None)
    )
    with progress(f"running {dataset.name}", min(len(dataset), limit or len(dataset))) as advance:
        measured = parity.measure(session, model, dataset, limit, advance)
    if json:
        emit_json(measured.model_dump(mode="json"))
    else:
        print_table(str(package), parity_rows(measured))


if __name__ == "__main__":
    main()
