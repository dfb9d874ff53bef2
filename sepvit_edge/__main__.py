"""The commands as one: `sepvit-edge COMMAND`, or `python -m sepvit_edge COMMAND`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from . import __version__
from .cli.console import HELP, run_app

# In the order in which they are used.
COMMANDS = (
    *("export", "predict", "evaluate", "profile", "recommend", "quantize", "train", "bundle"),
    *("push", "doctor"),
)


def main() -> None:
    """Run the command that the first argument names; without one, list them."""
    # One command is enough, if it is named: the others would have to be imported.
    named = [name for name in sys.argv[1:2] if name in COMMANDS]
    run_app(application(named or COMMANDS))


def application(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """Return the application with these commands."""
    app = typer.Typer(
        name="sepvit-edge",
        help="From a SepViT checkpoint to verified packages for edge runtimes.",
        pretty_exceptions_enable=False,
        context_settings=HELP,
    )
    app.callback(invoke_without_command=True)(_without_command)
    for name in names:
        module = importlib.import_module(f".{name}", __package__)
        # "Classify images with a package: `python ...`."
        summary = (module.__doc__ or "").partition("\n")[0].partition(": `")[0]
        module.main.add_to(app, name, summary)
    return app


def _without_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and leave.")
    ] = False,
) -> None:
    if version:
        print(f"sepvit-edge {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


if __name__ == "__main__":
    main()
