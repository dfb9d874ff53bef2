"""The table of every part's distance to the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .console import print_columns

if TYPE_CHECKING:
    from ..pipeline.taps import TapDistance


def print_by_block(found: Mapping[str, Sequence[TapDistance]]) -> None:
    """Print one package's distances, or the SQNR of several side by side.

    Parameters
    ----------
    found : mapping
        Distances by the package's name.
    """
    if len(found) == 1:
        (taps,) = found.values()
        rows = [
            [tap.name, f"{tap.max_abs_error:.2g}", f"{tap.sqnr_db:.1f} dB", "too far" * tap.leaves]
            for tap in taps
        ]
        print_columns(["output of", "max abs error", "SQNR", ""], rows)
        return
    names = dict.fromkeys(tap.name for taps in found.values() for tap in taps)
    cells = {
        package: {tap.name: f"{tap.sqnr_db:.1f}{' too far' * tap.leaves}" for tap in taps}
        for package, taps in found.items()
    }
    # A part that a package's form folded into another one has no distance of its own.
    rows = [[name, *(cells[package].get(name, "-") for package in found)] for name in names]
    print_columns(["SQNR in dB, output of", *found], rows)
