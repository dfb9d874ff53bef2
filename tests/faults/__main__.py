"""Faults on purpose: kills at random moments, full disks, two at once, flipped bytes, sessions.

    python -m tests.faults                          # in full: hours
    python -m tests.faults --count 2 --only kills   # a part
    python -m tests.faults --write                  # and the figures go into docs/reliability.md,
                                                    # in place of older ones of the same trials

Each trial ends in one of two ways: handled, when nothing was lost, nothing is half written and the
user gets a sentence; or a fault, which is listed.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date

from .disks import full_disks
from .kills import REPOSITORY, kills, two_at_once
from .packages import flipped_bytes
from .sessions import sessions

PAGE = REPOSITORY / "docs" / "reliability.md"
Trial = tuple[str, str]  # what was tried, and the fault; empty if it was handled


@dataclass
class Result:
    """Trials of one kind."""

    tried: int = 0
    faults: list[str] = field(default_factory=list)


SUITES: dict[str, Callable[[int, random.Random], Iterator[Trial]]] = {
    "kills": kills,
    "two at once": two_at_once,
    "full disks": full_disks,
    "flipped bytes": flipped_bytes,
    "sessions": sessions,
}


def main() -> None:
    """Run the suites, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="Trials of each kind.")
    parser.add_argument("--only", choices=SUITES, action="append", help="Repeatable.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="Write docs/reliability.md.")
    arguments = parser.parse_args()
    # Started in the background, it would ignore Ctrl-C, and its children with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng, found = random.Random(arguments.seed), dict[str, Result]()
    for name in arguments.only or SUITES:
        for what, fault in SUITES[name](arguments.count, rng):
            result = found.setdefault(what, Result())
            result.tried += 1
            if fault:
                result.faults.append(fault)
                print(f"FAULT {what}: {fault}", file=sys.stderr, flush=True)
            if arguments.write:  # after each trial: a run of hours may be ended
                rows = _rows(PAGE.read_text(encoding="utf-8") if PAGE.exists() else "")
                PAGE.write_text(_page(rows | {what: _row(what, result)}), encoding="utf-8")
        print(f"{name}: done", file=sys.stderr, flush=True)
    print(_page({what: _row(what, result) for what, result in found.items()}))
    sys.exit(any(result.faults for result in found.values()))


def _row(what: str, result: Result) -> str:
    handled = result.tried - len(result.faults)
    faults = "<br>".join(result.faults) or "0"
    return f"| {what} | {result.tried:,} | {handled:,} | {faults} | {date.today():%Y-%m-%d} |"


def _rows(page: str) -> dict[str, str]:
    """Return the rows of a page's table, by what was tried."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0][2:]: line for line in lines[1:]}


def _page(rows: dict[str, str]) -> str:
    return "\n".join(
        [
            "# Reliability",
            "",
            "Faults on purpose, by `python -m tests.faults --write`. Handled means: nothing was "
            "lost, nothing is half written, and the command ended with a sentence or went on.",
            "",
            "| what | tried | handled | faults | measured |",
            "|-|-|-|-|-|",
            *rows.values(),
            "",
        ]
    )


if __name__ == "__main__":
    main()
