"""Classify images with a package: `python -m sepvit_edge.predict PACKAGE image.jpg ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli.console import command, emit_json, print_columns, warn
from .cli.options import MOST_THREADS, RequireSignature


@command
def main(
    package: Annotated[Path, typer.Argument(help="Folder of a package.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    top: Annotated[int, typer.Option(help="Number of classes to show.", min=1)] = 3,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads. Default: chosen by the runtime.", min=1, max=MOST_THREADS),
    ] = None,
    require_signature: RequireSignature = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Name the most probable classes of each image.

    Images that cannot be read are reported and skipped; the exit status is then 2.
    """
    import numpy as np

    from .data.folders import list_images
    from .errors import SepViTError
    from .package.folder import Package
    from .package.session import PackageSession

    opened = Package(package, require_signature)
    paths = list_images(images)
    if not any(path.exists() for path in paths):
        raise SepViTError(f"there is no file {paths[0]}")
    session = PackageSession(opened, threads)
    labels = opened.labels
    results, failures = [], 0
    for path in paths:
        try:
            logits = session.run(path)[0].astype(np.float64)
        except SepViTError as error:
            warn(str(error))
            failures += 1
            continue
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        # A stable sort: equal logits keep the order of the classes, in every language.
        best = np.argsort(-probabilities, kind="stable")[:top]
        classes = [{"label": labels[i], "probability": float(probabilities[i])} for i in best]
        results.append({"image": str(path), "classes": classes})
    if json:
        emit_json(results)
    elif results:
        rows = []
        for found in results:
            cells = [f"{c['label']} {c['probability']:.1%}" for c in found["classes"]]  # type: ignore[index]
            rows.append([str(found["image"]), *cells])
        print_columns(["image", *(f"top {i + 1}" for i in range(len(rows[0]) - 1))], rows)
    if failures:
        raise SepViTError(f"{failures} of {failures + len(results)} images could not be classified")


if __name__ == "__main__":
    main()
