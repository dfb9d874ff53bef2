"""Run a package on images: `python -m sepvit_edge.predict PACKAGE image.jpg ...`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from .cli.options import MOST_THREADS, RequireSignature, Workers
from .errors import Interrupted, SepViTError

if TYPE_CHECKING:
    from .package.session import PackageSession
    from .pipeline.answers import Answer
    from .pipeline.bulk import Prediction
    from .pipeline.reading import Engine

_TOP, _LISTED = 3, 5
# What the apps show too.
_LEAST_SCORE = 0.3
_WITH_BOXES = ("detection", "instance-segmentation")


@command
def main(
    package: Annotated[Path, typer.Argument(help="Folder of a package.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    top: Annotated[
        int | None,
        typer.Option(help="Number of classes to show; default 3.", min=1, show_default=False),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With segmentation and detection: draw class maps, boxes, masks onto the images.",
        ),
    ] = None,
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
    workers: Workers = "",
    min_score: Annotated[
        float | None,
        typer.Option(
            help="With detection: leave out boxes below this score. Default: 0.3; evaluate takes "
            "every box, as average precision asks.",
            min=0,
            max=1,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Name the most probable classes of each image; or find its segments, or objects.

    A package for segmentation gives the share of each class, one for detection the boxes, of Mask
    R-CNN with masks; --json has them in COCO's terms, masks as run lengths.

    Images that cannot be read are reported and skipped; the exit status is then 2.
    """
    from .data.folders import list_images
    from .package.folder import Package
    from .package.session import PackageSession
    from .pipeline.ray_cluster import check_workers, engine_on
    from .pipeline.saving import check_save

    if save is not None:
        check_save(save)
    if workers:
        check_workers(workers)
        threads = threads or 1  # each process takes its own cores
    opened = Package(package, require_signature)
    paths = list_images(images)
    if not any(path.exists() for path in paths):
        raise SepViTError(f"there is no file {paths[0]}")
    dense = opened.manifest.task != "classification"
    for option, wrong in (
        ("--top", dense and top is not None),
        ("--save", dense and save is not None),
        ("--draw", not dense and draw is not None),
        ("--min-score", opened.manifest.task not in _WITH_BOXES and min_score is not None),
    ):
        if wrong:
            raise SepViTError(f"{option} is not for {opened.manifest.task}; leave it out")
    session, engine = PackageSession(opened, threads), engine_on(workers, threads or 1)
    if dense:
        least = _LEAST_SCORE if min_score is None else min_score
        broken = _find(session, paths, draw, least, json, engine)
    elif save is not None:
        broken = _save(session, paths, top or _TOP, save, json, engine)
    else:
        broken = _print(session, paths, top or _TOP, json, engine)
    if broken:
        done = "used" if dense else "classified"
        raise SepViTError(f"{broken} of {len(paths)} images could not be {done}")


def _print(
    session: PackageSession,
    paths: Sequence[Path],
    top: int,
    json: bool,
    engine: AbstractContextManager[Engine],
) -> int:
    """Print the classes of each image; return the number of those that cannot be read."""
    from .pipeline.bulk import classify_files

    found: list[Prediction] = []
    with engine as run, progress("classifying", len(paths), "images") as advance:
        for each in classify_files(session, paths, top, run):
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


def _find(
    session: PackageSession,
    paths: Sequence[Path],
    draw: Path | None,
    least: float,
    json: bool,
    engine: AbstractContextManager[Engine],
) -> int:
    """Print what is found in each image; return the number of those that cannot be read."""
    from .pipeline.answers import answer_json
    from .pipeline.findings import find_in_files

    labels = session.package.labels
    target = _Drawings(draw, session.package.manifest.task) if draw is not None else None
    found: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    with engine as run, progress("running", len(paths), "images") as advance:
        for each in find_in_files(session, paths, run):
            advance(1)
            if each.answer is None:
                warn(each.error)
                continue
            path, one = str(each.image), each.answer.shown(least)
            drawn = target.write(each.image, one, labels) if target is not None else None
            document = answer_json(one, labels)
            rows.append([path, _summary(document), *([] if drawn is None else [str(drawn)])])
            document = {"image": path, **document}
            found.append(document if drawn is None else {**document, "drawn": str(drawn)})
    if json:
        emit_json(found)
    elif rows:
        print_columns(["image", "found", *(["drawn"] if draw is not None else [])], rows)
    return len(paths) - len(found)


def _summary(document: dict[str, Any]) -> str:
    """Return what was found in an image in one line, the largest or best first."""
    if "boxes" in document:
        boxes = [f"{box['label']} {box['score']:.0%}" for box in document["boxes"]]
        more = [f"and {len(boxes) - _LISTED} more"] if len(boxes) > _LISTED else []
        return ", ".join([*boxes[:_LISTED], *more]) or "nothing"
    pixels = document["height"] * document["width"]
    segments = sorted(document["segments"], key=lambda segment: -segment["area"])
    return ", ".join(f"{each['label']} {each['area'] / pixels:.1%}" for each in segments)


class _Drawings:
    """Pictures in a folder, each with a name of its image.

    Parameters
    ----------
    folder : Path
        The folder; made if it is missing.
    task : str
        Part of the names.
    """

    def __init__(self, folder: Path, task: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise SepViTError(f"--draw {folder} is a file; name a folder") from None
        except OSError as error:
            raise SepViTError(f"--draw {folder} cannot be made: {error.strerror}") from None
        self._folder, self._task = folder, task
        self._names: set[str] = set()

    def write(self, path: Path, one: Answer, labels: Sequence[str]) -> Path:
        """Draw an answer onto its image, and return the file."""
        from .data.preprocess import load_image, to_rgb
        from .files import replacing_file
        from .pipeline.drawing import draw_answer

        stem = name = f"{path.stem}-{self._task}"
        number = 1
        while name in self._names:  # images of one name in several folders
            number += 1
            name = f"{stem}-{number}"
        self._names.add(name)
        file = self._folder / f"{name}.png"
        picture = draw_answer(to_rgb(load_image(path)), one, labels)
        try:
            with replacing_file(file) as partial:
                picture.save(partial, "PNG")
        except OSError as error:
            raise SepViTError(f"{file} cannot be written: {error.strerror}") from None
        return file


def _save(
    session: PackageSession,
    paths: Sequence[Path],
    top: int,
    path: Path,
    json: bool,
    engine: AbstractContextManager[Engine],
) -> int:
    """Write the classes of each image to a file; return the number of those that have none."""
    import time

    from .pipeline.bulk import classify_files
    from .pipeline.saving import growing_table

    count = min(top, len(session.package.labels))
    places = [f"{name}_{i + 1}" for i in range(count) for name in ("class", "probability")]
    facts = {"package": session.package.manifest.digest}
    keys = [str(path) for path in paths]
    with (
        _telling_how_to_continue(path),
        growing_table(path, facts, ["image", *places, "error"], keys) as table,
    ):
        kept = table.kept
        if kept:
            stderr.print(f"{path} is continued: {kept} of {len(paths)} images are there")
        with engine as run, progress("classifying", len(paths), "images", done=kept) as advance:
            began = time.monotonic()
            for each in classify_files(session, paths[kept:], top, run):
                advance(1)
                if each.error:
                    warn(each.error)
                cells = [cell for pair in each.classes for cell in pair] or [""] * len(places)
                table.add([str(each.image), *cells, each.error])
            seconds = time.monotonic() - began
        broken = {row[0]: row[-1] for row in table.rows() if row[-1]}
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
