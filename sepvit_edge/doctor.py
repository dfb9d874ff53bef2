"""Show what can be exported and run here: `python -m sepvit_edge.doctor`."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from .cli.console import command, emit_json, print_columns, print_table, steps
from .machine import cpu_features, cpu_name, present_features, usable_cores


@command
def main(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show which targets can be exported and run here, and the CPU's features for them."""
    from .backends.health import target_health
    from .config.recipe import recipes_for

    with steps() as step:
        step("loading the runtimes")
        targets, features = target_health(), cpu_features()
    system = {
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "torch": _version("torch"),
        "CPU": cpu_name() or platform.machine(),
        "cores": str(len(usable_cores())),
    }
    had = present_features()
    faster = [name for name, recipe in recipes_for(had).items() if recipe.cpu_features]
    if json:
        emit_json(
            {
                "system": system,
                "cpu": features,
                "recipes": faster,
                "targets": [asdict(t) for t in targets],
            }
        )
        return
    shown = ", ".join(had) or "not listed by the system"
    missing = ", ".join(name for name, has in features.items() if not has)
    rows = [*system.items(), ("features", shown)]
    rows += [("missing", missing)] if missing else []
    rows += [("recipes to try", ", ".join(faster))] if faster else []
    print_table("this machine", rows)
    header = ["target", "runtime", "installed", "supported", "exports", "runs here"]
    print_columns(
        header,
        [
            [
                t.target,
                t.runtime,
                t.installed or "-",
                t.supported,
                "yes" if t.exports else "no",
                t.runs,
            ]
            for t in targets
        ],
    )
    for target in targets:
        if target.advice:
            print_table(f"{target.target}: what to do", [("", ""), ("advice", target.advice)])


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
