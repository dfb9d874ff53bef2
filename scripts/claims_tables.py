"""Tables and verdicts of docs/results/claims.md, from the data that benchmarks/claims.py writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "docs" / "data" / "claims"
Table = tuple[tuple[str, ...], list[list[str]]]


def read(name: str) -> dict[str, Any]:
    """Read the data of a claim."""
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    return found


def made_by(found: dict[str, Any]) -> str:
    """Say which command made some data, when, where, and how far its times are trusted."""
    machine = found["machine"]
    where = f"{machine['cpu']}{', virtual' if machine['virtualized'] else ''}"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"`python {found['command']}`, {found['date']}, on {where}; {versions}."]
    if "doubts" in found:
        doubts = "; ".join(sorted(set(found["doubts"])))
        load = f"The load was {min(found['load'])} to {max(found['load'])}."
        judged = f"Not trustworthy: {doubts}." if doubts else "Nothing speaks against the times."
        lines.append(f"{load} {judged}")
    return " ".join(lines) + "\n"


def holds(value: bool) -> str:
    """Say whether a claim holds."""
    return "yes" if value else "**no**"


def _last_digit(paper: float) -> float:
    return 10.0 ** -len(str(paper).partition(".")[2]) if isinstance(paper, float) else 1.0


def complexity_verdicts(found: dict[str, Any]) -> list[list[str]]:
    """Judge parameters, multiply-accumulates and formulas."""
    rows = [row for network in found["networks"] for row in network["rows"]]
    equal = all(
        row["counted"] == row["formula"] and row["counted_attention"] == row["formula_attention"]
        for row in rows
    )
    off = [
        abs(row["here"] - row["paper"]) / _last_digit(row["paper"]) for row in found["published"]
    ]
    exponents = found["networks"][-1]["exponents"]
    grows = f"exponents {exponents['dsa']:.2f} and {exponents['psa']:.2f}"
    return [
        [
            "Parameters and MACs of all variants, and of dense prediction",
            "tables of ImageNet, ADE20K and COCO",
            f"{len(off)} figures, at most {max(off):.1f} of the last published digit off",
            holds(max(off) < 1),
        ],
        [
            "MACs of DSA, PSA, linears and convolutions follow the formulas",
            "section on complexity",
            f"{len(rows)} networks and image sizes, {'all equal' if equal else 'not all equal'}",
            holds(equal),
        ],
        [
            "With windows of 7, DSA grows with the pixels and PSA with their square",
            "the same",
            grows,
            holds(abs(exponents["dsa"] - 1) < 0.05 and abs(exponents["psa"] - 2) < 0.05),
        ],
    ]


def complexity_table(found: dict[str, Any]) -> Table:
    """List the growth of each network."""
    rows = []
    for network in found["networks"]:
        for row in (network["rows"][0], network["rows"][-1]):
            share = [f"{100 * row[kind] / row['counted']:.1f} %" for kind in ("dsa", "psa")]
            windows = f"{network['window']} x {network['window']}" if network["window"] else "grow"
            first = [network["variant"], windows, str(row["image_size"])]
            macs = [f"{row[kind] / 1e9:.3f}" for kind in ("counted", "formula")]
            rows.append([*first, *macs, *share, f"{network['exponents']['counted']:.2f}"])
    header = ("variant", "windows", "image", "10^9 MACs", "formula", "DSA's products", "PSA's")
    return (*header, "exponent"), rows


def published_table(found: dict[str, Any]) -> Table:
    """List the published figures beside those of this repository."""
    rows = [[row["what"], str(row["paper"]), f"{row['here']:.3f}"] for row in found["published"]]
    return ("figure", "paper", "here"), rows


VERDICTS: dict[str, Callable[[dict[str, Any]], list[list[str]]]] = {
    "complexity": complexity_verdicts,
}
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], Table]]] = {
    "complexity": ("complexity", complexity_table),
    "published": ("complexity", published_table),
}


def verdicts() -> Table:
    """List every claim: its source, what was measured, and whether it holds."""
    rows = [row for name, judge in VERDICTS.items() for row in judge(read(name))]
    return ("claim", "in the paper", "measured", "holds"), rows
