"""Tables of docs/results/peers.md, from the data that benchmarks/peers.py writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from claims_tables import Table, made_by, on_the_clock

DATA = Path(__file__).resolve().parent.parent / "docs" / "data" / "peers.json"
OURS = "SepViT-T"
LEVEL = 0.03  # about what two processes of the same models differ by
COLUMNS = {
    "openvino-fp32": "OpenVINO fp32",
    "openvino-bf16": "OpenVINO bf16",
    "openvino-int8": "OpenVINO int8, f32 between",
    "openvino-int8-bf16": "OpenVINO int8, bf16 between",
    "onnxruntime-fp32": "ONNX Runtime fp32",
    "onnxruntime-int8": "ONNX Runtime int8",
    "executorch-fp32": "ExecuTorch fp32",
}


def read() -> dict[str, Any]:
    """Read the data."""
    found: dict[str, Any] = json.loads(DATA.read_text("utf-8"))
    return found


def introduction(found: dict[str, Any]) -> str:
    """Say how the columns were made, and how far they are trusted."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for facts in found["columns"].values():
        runs.setdefault(facts["command"], []).append(facts)
    lines = []
    for columns in runs.values():
        doubts = [doubt for facts in columns for doubt in facts["doubts"]]
        load = [value for facts in columns for value in facts["load"]]
        lines.append(made_by({**found, **columns[0], "doubts": doubts, "load": load}))
    return "\n".join(lines)


def speed_table(found: dict[str, Any]) -> Table:
    """List each model's time over SepViT-T's: below 1 it is faster."""
    columns = list(found["columns"])
    known = {(row["column"], row["model"]): row for row in found["rows"]}
    ours = [
        on_the_clock(known[column, OURS]["ms"], facts["doubts"], digits=1)
        for column, facts in found["columns"].items()
    ]
    own = found["models"][OURS]
    rows = [[f"{OURS}, ms on the clock", f"{own['top1']}", f"{own['macs'] / 1e9:.2f}", *ours]]
    for name, facts in found["models"].items():
        if name == OURS:
            continue
        ratios = [known[column, name]["over_ours"] for column in columns]
        shown = [f"{r['p50']:.2f} ({r['p10']:.2f}-{r['p90']:.2f})" for r in ratios]
        size = f" @{facts['image_size']}" if facts["image_size"] != 224 else ""
        note = f" ({facts['note']})" if facts["note"] else ""
        rows.append([name + size, f"{facts['top1']}{note}", f"{facts['macs'] / 1e9:.2f}", *shown])
    return ("model", "top-1 %", "10^9 MACs", *(COLUMNS[column] for column in columns)), rows


def standing_table(found: dict[str, Any]) -> Table:
    """Say in each column what is faster than SepViT-T, level with it, and no less accurate."""
    rows, top1 = [], found["models"][OURS]["top1"]
    for column in found["columns"]:
        times = {
            row["model"]: row["over_ours"]["p50"]
            for row in found["rows"]
            if row["column"] == column and row["model"] != OURS
        }
        faster = [name for name, time in times.items() if time < 1 - LEVEL]
        level = [name for name, time in times.items() if abs(time - 1) <= LEVEL]
        better = [name for name in faster if found["models"][name]["top1"] >= top1]
        rows.append([COLUMNS[column], *(", ".join(n) or "none" for n in (faster, level, better))])
    header = ("runtime and precision", "faster", "level, within 3 %")
    return (*header, "faster, and at least as accurate"), rows


TABLES = {"speed": speed_table, "standing": standing_table}
