"""The paper's claims on this machine: each a command that writes its data.

    python benchmarks/claims.py complexity

The data lie in docs/data/claims; `python scripts/make_docs.py` makes tables and pictures of them,
docs/results/claims.md. Times are of one thread, and taken in turn: pin the command to a core that
nothing else uses, as `taskset -c 1 python benchmarks/claims.py block`.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from sepvit_edge.cli.console import HELP, Command, run_app
from sepvit_edge.errors import unknown_name
from sepvit_edge.files import check_output_file
from sepvit_edge.model.variants import find_variant

RUNTIMES = ("openvino", "onnxruntime", "executorch")
DATA = Path(__file__).resolve().parent.parent / "docs" / "data" / "claims"

Output = Annotated[Path | None, typer.Option(help="JSON file. Default: docs/data/claims/NAME.json")]
Runs = Annotated[int, typer.Option(min=2, help="Rounds of each process.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes, each with its own order.")]
Runtimes = Annotated[list[str] | None, typer.Option("--runtime", help="Repeatable. Default: all.")]


def complexity(output: Output = None) -> None:
    """Count multiply-accumulates and hold them against formulas and published tables."""
    path = _path("complexity", output)
    from paper.complexity import measure

    _write(path, measure(), ["torch"])


def block(
    runs: Runs = 30, processes: Processes = 3, runtime: Runtimes = None, output: Output = None
) -> None:
    """Time one SepViT block against the two-block structures of Swin, Twins and CSWin."""
    path, names = _path("block", output), _runtimes(runtime)
    from paper.block import measure

    _write(path, measure(runs, processes, names), [*names, "timm"])


def ablations(
    runs: Runs = 10,
    processes: Processes = 6,
    runtime: Runtimes = None,
    variant: Annotated[str, typer.Option(help="Variant.")] = "t",
    output: Output = None,
) -> None:
    """Time SepViT without its position encoding, grouped attention, window tokens and PSA."""
    path, names = _path("ablations", output), _runtimes(runtime)
    find_variant(variant)
    from paper.ablations import measure

    _write(path, measure(runs, processes, names, variant), names)


def variants(
    runs: Runs = 10, processes: Processes = 3, runtime: Runtimes = None, output: Output = None
) -> None:
    """Time the four variants, beside the paper's relative speeds."""
    path, names = _path("variants", output), _runtimes(runtime)
    from paper.variants import measure

    _write(path, measure(runs, processes, names), names)


def scaling(
    runs: Runs = 15,
    runtime: Runtimes = None,
    variant: Annotated[str, typer.Option(help="Variant at the centre.")] = "t",
    output: Output = None,
) -> None:
    """Time one network over image sizes, batches, threads and variants, and read its memory."""
    path, names = _path("scaling", output), _runtimes(runtime)
    find_variant(variant)
    from paper.scaling import measure

    _write(path, measure(runs, names, variant), names)


def _runtimes(names: list[str] | None) -> list[str]:
    for name in names or ():
        if name not in RUNTIMES:
            raise unknown_name("runtime", name, RUNTIMES)
    return names or list(RUNTIMES)


def _path(name: str, output: Path | None) -> Path:
    """Return where the data go, checked before anything is measured."""
    path = output or DATA / f"{name}.json"
    check_output_file(path, "--output", ".json")
    return path


def _write(path: Path, found: dict[str, Any], packages: list[str]) -> None:
    from interleaved import circumstances

    known = circumstances(["benchmarks/claims.py", *sys.argv[1:]], ["sepvit-edge", *packages])
    text = json.dumps({**known, **found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{path} is written; python scripts/make_docs.py makes the page")


def main() -> None:
    """Run a command."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    app = typer.Typer(
        help=__doc__, add_completion=False, pretty_exceptions_enable=False, context_settings=HELP
    )
    app.callback()(lambda: None)
    for function in (complexity, block, ablations, variants, scaling):
        Command(function).add_to(app, function.__name__, (function.__doc__ or "").split("\n")[0])
    run_app(app)


if __name__ == "__main__":
    main()
