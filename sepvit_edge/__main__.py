"""Command list: `python -m sepvit_edge`; `python -m sepvit_edge export` runs one of them."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

from .errors import unknown_name

# In the order in which they are used.
COMMANDS = (
    *("export", "predict", "evaluate", "profile", "recommend", "quantize", "train", "bundle"),
    "doctor",
)


def main() -> int:
    """Run the command that the first argument names; without one, list them."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(listing())
        return 0
    name = sys.argv.pop(1)
    if name not in COMMANDS:
        print(f"error: {unknown_name('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
    return 0


def listing() -> str:
    """Return a line for each command."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{summary(name)}" for name in COMMANDS]
    usage = "Usage: python -m sepvit_edge COMMAND [OPTIONS]; COMMAND --help lists its options."
    return "\n".join([usage, "", *lines])


def summary(name: str) -> str:
    """Return the first sentence of a command's module, which is not imported for it.

    Examples
    --------
    >>> summary("predict")
    'Classify images with a package'
    """
    source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    first = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return first.partition(": `")[0]


if __name__ == "__main__":
    sys.exit(main())
