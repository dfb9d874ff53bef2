"""SepViT-T beside other networks of its accuracy, from timm, on every runtime and precision.

    taskset -c 1 python benchmarks/peers.py

Needs `pip install 'sepvit-edge[peers]'`. Weights are random: no time depends on them. All models of
a runtime and precision are timed in turn, in several processes. The data go to
docs/data/peers.json, of which `python scripts/make_docs.py` makes docs/results/peers.md. With
`--models FOLDER` the exported files stay there, to be timed again; with `--column` the others are
kept as they were measured.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sepvit_edge.cli.console import HELP, Command, run_app
from sepvit_edge.errors import SepViTError, unknown_name
from sepvit_edge.files import check_output_file
from sepvit_edge.machine import cpu_flags

DATA = Path(__file__).resolve().parent.parent / "docs" / "data" / "peers.json"


# Name -> runtime, precision of the files, OpenVINO's hint for what it computes in floats.
COLUMNS = {
    "openvino-fp32": ("openvino", "fp32", "f32"),
    "openvino-bf16": ("openvino", "fp32", "bf16"),
    "openvino-int8": ("openvino", "int8", "f32"),
    "openvino-int8-bf16": ("openvino", "int8", "bf16"),
    "onnxruntime-fp32": ("onnxruntime", "fp32", ""),
    "onnxruntime-int8": ("onnxruntime", "int8", ""),
    "executorch-fp32": ("executorch", "fp32", ""),
}


def peers(
    runs: Annotated[int, typer.Option(min=2, help="Rounds of each process.")] = 10,
    processes: Annotated[int, typer.Option(min=1, help="Processes of each column.")] = 3,
    column: Annotated[
        list[str] | None, typer.Option(help="Runtime and precision. Repeatable. Default: all.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder where model files are kept, to time them again.")
    ] = None,
    output: Annotated[Path, typer.Option(help="JSON file.")] = DATA,
) -> None:
    """Time SepViT-T and its peers in turn."""
    check_output_file(output, "--output", ".json")
    for name in column or ():
        if name not in COLUMNS:
            raise unknown_name("column", name, COLUMNS)
    has_bf16 = {"avx512_bf16", "amx_bf16", "bf16"} & {*cpu_flags()}
    if not has_bf16 and any("bf16" in name for name in column or ()):
        raise SepViTError("this CPU has no bfloat16; leave the columns with bf16 out")
    wanted = column or [name for name in COLUMNS if has_bf16 or "bf16" not in name]
    os.environ["NNCF_CI"] = "1"  # or NNCF reports each use
    try:
        import nncf  # noqa: F401
        import timm  # noqa: F401
    except ImportError as error:
        raise SepViTError(f"{error.name} is missing: pip install 'sepvit-edge[peers]'") from None
    from interleaved import circumstances

    packages = ("sepvit-edge", "openvino", "onnxruntime", "executorch", "timm", "nncf")
    options = ["--runs", str(runs), "--processes", str(processes)]
    command = ["benchmarks/peers.py", *options, *(w for c in column or () for w in ("--column", c))]
    known = circumstances(command, packages)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(wanted, models or Path(scratch), runs, processes)
    made = {name: known.pop(name) for name in ("command", "date")}
    for facts in found["columns"].values():
        facts.update(made)
    document = with_others({**known, **found}, output)
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{output} is written; python scripts/make_docs.py makes the page")


def with_others(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """Keep the columns that were measured before, on the same machine with the same versions."""
    if not path.exists():
        return found
    before = json.loads(path.read_text("utf-8"))
    if any(before[name] != found[name] for name in ("machine", "versions", "models")):
        return found
    columns = {**before["columns"], **found["columns"]}
    rows = [row for row in before["rows"] if row["column"] not in found["columns"]]
    ordered = {name: columns[name] for name in COLUMNS if name in columns}
    return {**found, "columns": ordered, "rows": rows + found["rows"]}


def measure(columns: list[str], folder: Path, runs: int, processes: int) -> dict[str, Any]:
    """Export what is missing, and time each column."""
    from interleaved import time_models
    from peer_models import OURS, PEERS, model_file, size_of

    rows, judged = [], {}
    for column in columns:
        runtime, precision, hint = COLUMNS[column]
        files = {name: model_file(name, runtime, precision, folder) for name in PEERS}
        if hint:
            options = {"inference_precision": hint}
            files = {name: replace(file, options=options) for name, file in files.items()}
        timing = time_models(files, runs, processes)
        judged[column] = timing.facts()
        for name in files:
            rows.append(
                {
                    "column": column,
                    "model": name,
                    "ms": round(timing.milliseconds(name), 2),
                    "over_ours": timing.ratio(name, OURS),
                }
            )
        print(column, *(f"{row['model']} {row['ms']}" for row in rows[-len(files) :]), sep=", ")
    facts = {
        name: {"image_size": peer.image_size, "top1": peer.top1, "note": peer.note, **size_of(name)}
        for name, peer in PEERS.items()
    }
    return {"models": facts, "columns": judged, "rows": rows}


def main() -> None:
    """Run the command."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    app = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, context_settings=HELP, help=__doc__
    )
    Command(peers).add_to(app, "peers", "Time SepViT-T and its peers in turn.")
    run_app(app)


if __name__ == "__main__":
    main()
