"""Ctrl-C while a command still imports what it needs, before anything of it can catch that.

It needs nothing but Python, since it is imported before all else.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType


def name_early_interrupts() -> None:
    """Print a sentence in place of a traceback, if this process starts one of our commands.

    While `python -m sepvit_edge.export` imports this package, the name of its program is ``-m``.
    In any other program the hook is left alone.
    """
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    if program == "-m" or program.startswith("sepvit-edge"):
        sys.excepthook = _say


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):  # Python then ends the process by SIGINT, as it should
        print("error: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
