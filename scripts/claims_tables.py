"""Tables and verdicts of docs/results/claims.md, from the data that benchmarks/claims.py writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "docs" / "data" / "claims"
OURS = "SepViT block"
RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "executorch": "ExecuTorch"}
Table = tuple[tuple[str, ...], list[list[str]]]


def read(name: str) -> dict[str, Any]:
    """Read the data of a claim."""
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    return found


def made_by(found: dict[str, Any]) -> str:
    """Say which command made some data, when, where, and how far its times are trusted."""
    machine = found["machine"]
    cores = f"{machine['logical_cores']} core{'s' * (machine['logical_cores'] > 1)}"
    where = f"{cores} of {'a virtual ' if machine['virtualized'] else ''}{machine['cpu']}"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"`python {found['command']}`, {found['date']}, on {where}; {versions}."]
    if "doubts" in found:
        load = f"The load was {min(found['load'])} to {max(found['load'])}."
        judged = "Nothing speaks against the times."
        if found["doubts"]:
            worst = "; ".join(sorted(set(found["doubts"]))[-2:])
            judged = (
                f"The judgement of `profile`: absolute times are not trustworthy ({worst}); "
                "they are left out."
            )
        lines.append(f"{load} {judged}")
    if any("clock_p50" in str(row) for row in found.get("rows", ())):
        lines.append("Ratios are of processor time, which other processes change little.")
    return " ".join(lines) + "\n"


def holds(value: bool, timed: dict[str, Any] | None = None) -> str:
    """Say whether a claim holds, and whether the times behind it are doubted."""
    doubted = ", on a busy machine" if timed and timed["doubts"] else ""
    return f"{'yes' if value else '**no**'}{doubted}"


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


def on_the_clock(ms: float, doubts: Sequence[str], digits: int = 2) -> str:
    """Write a time in ms, or a dash where it is not trustworthy: ratios hold, times do not."""
    return "-" if doubts else f"{ms:.{digits}f}"


def _ratio(value: dict[str, Any]) -> str:
    """Write a ratio with its percentiles."""
    return f"{value['p50']:.2f} ({value['p10']:.2f}-{value['p90']:.2f})"


def _pairs(found: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the rows by structure, within what they are measured on."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in found["rows"]:
        where = tuple(row[name] for name in ("map", "channels", "runtime", "style"))
        rows.setdefault(where, {})[row["structure"]] = row
    return rows


def block_verdicts(found: dict[str, Any]) -> list[list[str]]:
    """Judge the multiply-accumulates and the time of one block against two."""
    source = "one block in place of two"
    rows = list(_pairs(found).values())
    shares = [
        group[OURS]["macs"] / row["macs"]
        for group in rows
        for name, row in group.items()
        if name != OURS
    ]
    span = f"{min(shares):.2f} to {max(shares):.2f} of theirs"
    half = min(shares) > 0.4 and max(shares) < 0.6
    verdicts = [["About half of the MACs of two blocks", source, span, holds(half)]]
    for runtime in dict.fromkeys(row["runtime"] for row in found["rows"]):
        for style in ("as it stands", "edge form"):
            times = [
                row["ours_over_this"]["p50"]
                for row in found["rows"]
                if (row["runtime"], row["style"]) == (runtime, style) and row["structure"] != OURS
            ]
            less = f"{100 * (1 - max(times)):.0f} to {100 * (1 - min(times)):.0f} % less time"
            faster = f"{1 / max(times):.2f} to {1 / min(times):.2f} times as fast, {less}"
            claim = f"55 to 60 % faster (1.55 times as fast) than two: {RUNTIMES[runtime]}, {style}"
            verdicts.append([claim, source, faster, holds(1 / max(times) >= 1.55, found)])
    return verdicts


def block_macs_table(found: dict[str, Any]) -> Table:
    """List the multiply-accumulates of the structures of each stage."""
    rows, header = [], ["map", "channels", "SepViT block, 10^6 MACs"]
    for (side, channels, *_), group in _pairs(found).items():
        ours = group[OURS]["macs"]
        others = [row for name, row in group.items() if name != OURS]
        if len(others) == 3 and not any(row[0] == f"{side} x {side}" for row in rows):
            header[3:] = [row["structure"] for row in others]
            shares = [f"{row['macs'] / 1e6:.0f} ({ours / row['macs']:.2f})" for row in others]
            rows.append([f"{side} x {side}", str(channels), f"{ours / 1e6:.0f}", *shares])
    return tuple(header), rows


def block_table(found: dict[str, Any]) -> Table:
    """List the time of SepViT's block and its share of each pair's."""
    rows = []
    for (side, _, runtime, style), group in _pairs(found).items():
        others = [group.get(f"{name}, two blocks") for name in ("Swin", "Twins", "CSWin")]
        shares = [_ratio(row["ours_over_this"]) if row else "-" for row in others]
        ours = on_the_clock(group[OURS]["ms"], found["doubts"])
        rows.append([RUNTIMES[runtime], style, f"{side} x {side}", ours, *shares])
    header = ("runtime", "written", "map", "SepViT block ms", "over Swin", "over Twins")
    return (*header, "over CSWin"), rows


def ablations_verdicts(found: dict[str, Any]) -> list[list[str]]:
    """Judge what the parts of SepViT cost."""
    verdicts = []
    for name in ("without CPE", "without GSA", "without learned tokens", "without PSA"):
        rows = [row for row in found["rows"] if row["form"] == name]
        (full,) = {row["macs"] for row in found["rows"] if row["form"] == "full"}
        saved = [100 * (1 - row["over_full"]["p50"]) for row in rows]
        macs = 100 * (1 - rows[0]["macs"] / full)
        part = name.removeprefix("without ")
        span = f"{min(saved):.1f}" + (f" to {max(saved):.1f}" if len(saved) > 1 else "")
        names = ", ".join(RUNTIMES[row["runtime"]] for row in rows)
        measured = f"{macs:.1f} % of MACs; {span} % of the time on {names}"
        claim = f"{part[0].upper()}{part[1:]}: at most 5 % of the time"
        verdicts.append(
            [claim, "ablations, that state accuracy", measured, holds(max(saved) <= 5, found)]
        )
    return verdicts


def ablations_table(found: dict[str, Any]) -> Table:
    """List each ablation's time over the full model's, and that of each process."""
    rows = []
    for row in found["rows"]:
        ratio = row["over_full"]
        spread = f"{min(ratio['processes']):.3f} to {max(ratio['processes']):.3f}"
        shown = f"{ratio['p50']:.3f} ({ratio['p10']:.3f}-{ratio['p90']:.3f})"
        first = [RUNTIMES[row["runtime"]], row["form"], f"{row['macs'] / 1e9:.3f}"]
        rows.append([*first, on_the_clock(row["ms"], found["doubts"]), shown, spread])
    header = ("runtime", "form", "10^9 MACs", "p50 ms", "over full (p10-p90)")
    return (*header, "medians of the processes"), rows


def variants_verdicts(found: dict[str, Any]) -> list[list[str]]:
    """Judge the variants' relative speeds."""
    verdicts = []
    for runtime in dict.fromkeys(row["runtime"] for row in found["rows"]):
        times = {
            row["variant"]: row["over_t"]["p50"]
            for row in found["rows"]
            if row["runtime"] == runtime
        }
        paper = {name: found["paper"][name]["throughput"] for name in ("s", "b")}
        off = max(abs(times[name] / paper[name] - 1) for name in paper)
        measured = f"S {times['s']:.2f}, B {times['b']:.2f} of T's time"
        claim = f"S takes {paper['s']:.2f} and B {paper['b']:.2f} of T's time: {RUNTIMES[runtime]}"
        said = f"{measured}; at most {100 * off:.0f} % off"
        verdicts.append([claim, "images a second, V100", said, holds(off <= 0.15, found)])
    return verdicts


def variants_table(found: dict[str, Any]) -> Table:
    """List times over T's, beside the paper's."""
    rows = []
    for name, paper in found["paper"].items():
        known = [f"{paper[kind]:.2f}" if paper[kind] else "-" for kind in ("throughput", "latency")]
        own = [row for row in found["rows"] if row["variant"] == name]
        shown = [_ratio(row["over_t"]) for row in own]
        rows.append([name, f"{paper['macs']:.2f}", *known, *shown])
    names = [RUNTIMES[row["runtime"]] for row in found["rows"] if row["variant"] == "t"]
    return ("variant", "MACs", "V100", "TensorRT", *names), rows


def scaling_verdicts(found: dict[str, Any]) -> list[list[str]]:
    """Judge the growth of time."""
    verdicts = []
    for runtime, fits in found["fits"].items():
        grows = [fits[name]["ms"] for name in ("image_size", "batch", "variant")]
        measured = "exponents {:.2f} of pixels, {:.2f} of images, {:.2f} of MACs".format(*grows)
        claim = f"Time grows about as the pixels (exponent 0.9 to 1.2): {RUNTIMES[runtime]}"
        verdicts.append([claim, "linear complexity", measured, holds(0.9 <= grows[0] <= 1.2)])
    return verdicts


def scaling_table(found: dict[str, Any]) -> Table:
    """List latency and memory of every setting."""
    rows = []
    for row in found["rows"]:
        first = [RUNTIMES[row["runtime"]], row["variant"], str(row["image_size"])]
        times = f"{row['ms']:.1f} ({row['p10']:.1f}-{row['p90']:.1f})"
        rates = [f"{row['macs'] / row['ms'] / 1e6:.0f}", f"{row['memory_mb']:.0f}"]
        counts = [str(row["batch"]), str(row["threads"])]
        doubts = "; ".join(row["doubts"]) or "-"
        rows.append([*first, *counts, times, *rates, f"{row['model_mb']:.0f}", doubts])
    header = ("runtime", "variant", "image", "batch", "threads", "p50 ms (p10-p90)")
    return (*header, "10^9 MACs/s", "memory MB", "file MB", "not trustworthy"), rows


VERDICTS: dict[str, Callable[[dict[str, Any]], list[list[str]]]] = {
    "complexity": complexity_verdicts,
    "block": block_verdicts,
    "ablations": ablations_verdicts,
    "variants": variants_verdicts,
    "scaling": scaling_verdicts,
}
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], Table]]] = {
    "complexity": ("complexity", complexity_table),
    "published": ("complexity", published_table),
    "block-macs": ("block", block_macs_table),
    "block": ("block", block_table),
    "ablations": ("ablations", ablations_table),
    "variants": ("variants", variants_table),
    "scaling": ("scaling", scaling_table),
}


def verdicts() -> Table:
    """List every claim that was measured: its source, the figures, and whether it holds."""
    known = [name for name in VERDICTS if (DATA / f"{name}.json").exists()]
    rows = [row for name in known for row in VERDICTS[name](read(name))]
    return ("claim", "in the paper", "measured", "holds"), rows
