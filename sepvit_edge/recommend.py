"""Find the package that fits a device: `python -m sepvit_edge.recommend --device NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, console, emit_json, steps, warn
from .cli.options import MOST_THREADS, Classes

if TYPE_CHECKING:
    from .profiling.candidates import Candidate


@command
def main(
    device: Annotated[
        str, typer.Option(help="Name of a device in profiles/, or a TOML file.")
    ] = "local",
    budget: Annotated[
        str,
        typer.Option(
            help='At most, beside the device\'s own budgets: "p90<20ms, size<10MB, peak<300MB".'
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(help="Images to measure accuracy on: a folder per class or a built-in set."),
    ] = "",
    classes: Classes = "",
    images: Annotated[
        int | None, typer.Option(help="Maximum number of images for accuracy.", min=1)
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoints to choose from (FILE::KEY: the weights under a key of one). "
            "Default: the built-in one."
        ),
    ] = None,
    image_sizes: Annotated[
        str, typer.Option(help="Sides in pixels, for example 160,192. Default: the checkpoint's.")
    ] = "",
    targets: Annotated[str, typer.Option(help="Runtimes. Default: the device's.")] = "",
    precisions: Annotated[str, typer.Option(help="For example fp32,int8. Default: all.")] = "",
    threads: Annotated[str, typer.Option(help="Numbers of threads. Default: the device's.")] = "",
    folder: Annotated[
        Path, typer.Option(help="Where packages and measurements are kept and reused.")
    ] = Path("runs/recommend"),
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Install the runtimes on the device if needed.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the times are not trustworthy.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Build and measure packages on a device, and name the best one within the budgets.

    Varied are checkpoint, image size, runtime, precision and threads. Finished packages and
    trustworthy measurements are kept in the folder, so an interrupted search continues where it
    stopped. Exit status 1: nothing fits the budgets or, with --strict, the choice rests on times
    that are not trustworthy.
    """
    from .cli.names import check_names, check_targets
    from .cli.numbers import whole_numbers, words
    from .errors import CheckFailed, SepViTError
    from .profiling.budgets import parse_budget, tightest
    from .profiling.candidates import pareto_front, pick
    from .profiling.devices import load_device
    from .profiling.recommending import Search

    check_names(weights=weights or [], data=[data], classes=classes)
    check_targets(words(targets), words(precisions))
    if classes and not data:
        raise SepViTError("--classes gives the folders of --data their labels; give --data too")
    name, facts = load_device(device)
    budgets = tightest(facts.budgets, parse_budget(budget))
    sizes = whole_numbers(image_sizes, "--image-sizes", "160,224")
    check_names(image_sizes=sizes)
    search = Search(
        name,
        facts,
        folder,
        weights=weights or [""],
        image_sizes=sizes or [None],
        targets=words(targets) or facts.measuring.targets,
        precisions=words(precisions),
        threads=whole_numbers(threads, "--threads", "1,2,4", MOST_THREADS)
        or facts.measuring.threads
        or [None],
        data=data,
        classes=classes,
        images=images,
        bootstrap=bootstrap,
    )
    with steps() as step:
        found = search.run(step)
    for text in search.skipped:
        warn(text)
    front = pareto_front(found)
    chosen = pick(found, budgets)
    _print(found, front, chosen, json)
    doubted = [f"{c.title}: {'; '.join(c.doubts)}" for c in found if c.doubts]
    if strict and doubted:
        raise CheckFailed(
            f"the choice is not trustworthy, because of {', and '.join(doubted)}; run it again on "
            "a quiet device: only these are measured again"
        )
    if chosen is None:
        raise CheckFailed("nothing that was measured fits the budgets; relax them, or vary more")


def _print(
    found: Sequence[Candidate], front: Sequence[Candidate], chosen: Candidate | None, json: bool
) -> None:
    from dataclasses import asdict

    from .cli.profile_tables import print_candidates
    from .cli.tables import images_text
    from .package.folder import Package

    measured = Package(found[0].package).manifest.parity  # the same images for all
    assert measured is not None and measured.selection is not None
    if json:
        emit_json(
            {
                "candidates": [asdict(candidate) for candidate in found],
                "front": [candidate.title for candidate in front],
                "pick": chosen.title if chosen else None,
                "selection": measured.selection.model_dump(mode="json"),
            }
        )
    else:
        print_candidates(found, front, chosen)
        console.print(images_text(measured.images, measured.data, measured.selection))


if __name__ == "__main__":
    main()
