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
from sepvit_edge.files import check_output_file

DATA = Path(__file__).resolve().parent.parent / "docs" / "data" / "claims"

Output = Annotated[Path | None, typer.Option(help="JSON file. Default: docs/data/claims/NAME.json")]


def complexity(output: Output = None) -> None:
    """Count multiply-accumulates and hold them against formulas and published tables."""
    path = _path("complexity", output)
    from paper.complexity import measure

    _write(path, measure(), ["torch"])


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
    for function in (complexity,):
        Command(function).add_to(app, function.__name__, (function.__doc__ or "").split("\n")[0])
    run_app(app)


if __name__ == "__main__":
    main()
