"""Find the package that fits a device: `python -m sepvit_edge.recommend --device NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli.console import command, console, emit_json, print_columns, steps, warn


@command
def main(
    device: Annotated[
        str, typer.Option(help="A device's name in profiles/, or a TOML file.")
    ] = "local",
    budget: Annotated[
        str, typer.Option(help='What the package must keep to: "p90<20ms, size<10MB, peak<300MB".')
    ] = "",
    data: Annotated[
        str,
        typer.Option(help="What accuracy is measured on: a folder per class or a built-in set."),
    ] = "",
    images: Annotated[int | None, typer.Option(help="At most so many images of it.", min=1)] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Checkpoints to choose from; the built-in one unless given."),
    ] = None,
    image_sizes: Annotated[
        str, typer.Option(help="Sides in pixels, for example 160,192,224; the checkpoint's own.")
    ] = "",
    targets: Annotated[str, typer.Option(help="Runtimes; the device's own unless given.")] = "",
    precisions: Annotated[
        str, typer.Option(help="For example fp32,int8; all that there are.")
    ] = "",
    threads: Annotated[str, typer.Option(help="Numbers of threads; the device's own.")] = "",
    folder: Annotated[
        Path, typer.Option(help="Where packages and measurements are kept, to go on from.")
    ] = Path("runs/recommend"),
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Install the runtimes on the device, if needed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Build and measure packages on a device, and name the best one within a budget.

    Over checkpoint, image size, runtime, precision and threads. What is finished is kept in the
    folder: an interrupted search goes on where it was. Exit status 1: nothing fits the budget.
    """
    from dataclasses import asdict

    from .errors import CheckFailed, SepViTError
    from .profiling.devices import load_device
    from .profiling.recommending import Search, pareto_front, parse_budget, pick

    name, facts = load_device(device)
    limits = parse_budget(budget)
    try:
        sizes = [int(text) for text in image_sizes.split(",") if text]
        counts = [int(text) for text in threads.split(",") if text]
    except ValueError:
        raise SepViTError("--image-sizes and --threads take numbers, for example 160,224") from None
    if facts.emulated:
        raise SepViTError("an emulated device has no times; choose a real one")
    search = Search(
        name,
        facts,
        folder,
        weights=weights or [""],
        image_sizes=sizes or [None],
        targets=[t for t in targets.split(",") if t] or facts.measuring.targets,
        precisions=[p for p in precisions.split(",") if p],
        threads=counts or facts.measuring.threads or [None],
        data=data,
        images=images,
        bootstrap=bootstrap,
    )
    with steps() as step:
        found = search.run(step)
    for text in search.skipped:
        warn(text)
    front = pareto_front(found)
    chosen = pick(found, limits)
    if json:
        emit_json(
            {
                "candidates": [asdict(candidate) for candidate in found],
                "front": [candidate.title for candidate in front],
                "pick": chosen.title if chosen else None,
            }
        )
    else:
        rows = []
        for candidate in sorted(found, key=lambda c: c.p90_ms):
            marks = "pick" if candidate is chosen else "front" if candidate in front else ""
            rows.append(
                [
                    candidate.title,
                    "-" if candidate.top1 is None else f"{candidate.top1:.2%}",
                    f"{candidate.agreement:.2%}",
                    f"{candidate.p50_ms:.2f}",
                    f"{candidate.p90_ms:.2f}",
                    f"{candidate.model_mb:.2f}",
                    "-" if candidate.peak_mb is None else f"{candidate.peak_mb:.0f}",
                    marks,
                ]
            )
        header = ["package", "top-1", "agreement", "p50 ms", "p90 ms", "MB", "peak MB", ""]
        print_columns(header, rows)
        console.print(search.plot(found, front, chosen), markup=False)
        if chosen is not None:
            console.print(f"pick: {chosen.package}, {chosen.threads or 'default'} threads")
    if chosen is None:
        raise CheckFailed("nothing that was measured fits the budget; relax it, or add candidates")


if __name__ == "__main__":
    main()
