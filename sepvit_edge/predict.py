"""Classify images with a package: `python -m sepvit_edge.predict PACKAGE image.jpg ...`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import (
    command,
    emit_json,
    print_columns,
    print_table,
    progress,
    stderr,
    warn,
)
from .cli.options import MOST_THREADS, RequireSignature
from .errors import Interrupted, SepViTError

if TYPE_CHECKING:
    from .package.session import PackageSession
    from .pipeline.bulk import Prediction


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
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the classes to a .csv or .parquet file; a run that ended early continues.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Name the most probable classes of each image.

    Images that cannot be read are reported and skipped; the exit status is then 2.
    """
    from .data.folders import list_images
    from .package.folder import Package
    from .package.session import PackageSession
    from .pipeline.saving import check_save

    if save is not None:
        check_save(save)
    opened = Package(package, require_signature)
    paths = list_images(images)
    if not any(path.exists() for path in paths):
        raise SepViTError(f"there is no file {paths[0]}")
    if opened.manifest.task != "classification":
        raise SepViTError(
            f"{opened.path} is for {opened.manifest.task}; in Python, "
            "open_package(...).run_outputs(image) gives its outputs"
        )
    session = PackageSession(opened, threads)
    if save is not None:
        broken = _save(session, paths, top, save, json)
    else:
        broken = _print(session, paths, top, json)
    if broken:
        raise SepViTError(f"{broken} of {len(paths)} images could not be classified")


def _print(session: PackageSession, paths: Sequence[Path], top: int, json: bool) -> int:
    """Print the classes of each image; return the number of those that cannot be read."""
    from .pipeline.bulk import classify_files

    found: list[Prediction] = []
    with progress("classifying", len(paths), "images") as advance:
        for each in classify_files(session, paths, top):
            advance(1)
            if each.error:
                warn(each.error)
            else:
                found.append(each)
    if json:
        emit_json(
            [
                {
                    "image": str(each.image),
                    "classes": [{"label": label, "probability": p} for label, p in each.classes],
                }
                for each in found
            ]
        )
    elif found:
        rows = [
            [str(each.image), *(f"{label} {p:.1%}" for label, p in each.classes)] for each in found
        ]
        print_columns(["image", *(f"top {i + 1}" for i in range(len(rows[0]) - 1))], rows)
    return len(paths) - len(found)


def _save(session: PackageSession, paths: Sequence[Path], top: int, path: Path, json: bool) -> int:
    """Write the classes of each image to a file; return the number of those that have none."""
    import time

    from .pipeline.bulk import classify_files
    from .pipeline.saving import growing_table

    count = min(top, len(session.package.labels))
    places = [f"{name}_{i + 1}" for i in range(count) for name in ("class", "probability")]
    facts = {"package": session.package.manifest.digest}
    keys = [str(path) for path in paths]
    began = time.monotonic()
    with (
        _telling_how_to_continue(path),
        growing_table(path, facts, ["image", *places, "error"], keys) as table,
    ):
        kept = table.kept
        if kept:
            stderr.print(f"{path} is continued: {kept} of {len(paths)} images are there")
        with progress("classifying", len(paths), "images", done=kept) as advance:
            for each in classify_files(session, paths[kept:], top):
                advance(1)
                if each.error:
                    warn(each.error)
                cells = [cell for pair in each.classes for cell in pair] or [""] * len(places)
                table.add([str(each.image), *cells, each.error])
        broken = {row[0]: row[-1] for row in table.rows() if row[-1]}
    seconds = time.monotonic() - began
    speed = (len(paths) - kept) / seconds
    if json:
        emit_json(
            {
                "saved": str(path),
                "images": len(paths),
                "continued_from": kept,
                "broken": [{"image": image, "error": error} for image, error in broken.items()],
                "images_per_second": round(speed, 2),
            }
        )
    else:
        rows = [
            ("images", f"{len(paths):,}"),
            ("broken", f"{len(broken):,}"),
            ("images per second", f"{speed:.1f}"),
        ]
        print_table(str(path), rows)
    return len(broken)


@contextmanager
def _telling_how_to_continue(path: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; repeat the command to continue {path} where it ended"
        ) from None


if __name__ == "__main__":
    main()
