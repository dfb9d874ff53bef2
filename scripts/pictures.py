"""Pictures of docs/results, drawn from the data; each carries the digest of its data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from sepvit_edge.charts import load_pyplot
from sepvit_edge.files import file_sha256

DOCS = Path(__file__).resolve().parent.parent / "docs"
RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "executorch": "ExecuTorch"}
NOTE = "Source"  # name of the digest in the PNG


def block(pyplot: Any, found: dict[str, Any]) -> Any:
    """Bars: time of one SepViT block over a pair's, in our style, by stage and runtime."""
    rows = [row for row in found["rows"] if row["style"] == "edge form"]
    names = [n for n in dict.fromkeys(row["structure"] for row in rows) if "SepViT" not in n]
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    figure, axes = pyplot.subplots(1, len(names), figsize=(9, 3), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        own = [row for row in rows if row["structure"] == name]
        maps = list(dict.fromkeys(row["map"] for row in own))
        for index, runtime in enumerate(runtimes):
            ratios = [row["ours_over_this"] for row in own if row["runtime"] == runtime]
            middle = [ratio["p50"] for ratio in ratios]
            reach = [
                [ratio["p50"] - ratio["p10"] for ratio in ratios],
                [ratio["p90"] - ratio["p50"] for ratio in ratios],
            ]
            places = [place + (index - 1) * 0.27 for place in range(len(maps))]
            axis.bar(places, middle, 0.25, yerr=reach, label=RUNTIMES[runtime])
        axis.set_xticks(range(len(maps)), [f"{side} x {side}" for side in maps])
        axis.set_title(name, fontsize=10)
        axis.axhline(1, color="black", linewidth=0.5)
    axes[0].set_ylim(0, 1.35)  # the legend's place
    axes[0].set_ylabel("time of one SepViT block over it")
    axes[-1].legend(fontsize=8)
    return figure


def scaling(pyplot: Any, found: dict[str, Any]) -> Any:
    """Lines: time and memory over pixels and over the batch."""
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3))
    drawn = (("image_size", "ms"), ("batch", "ms"), ("image_size", "memory_mb"))
    for axis, (name, kind) in zip(axes, drawn, strict=True):
        for runtime in found["fits"]:
            rows = [row for row in found["rows"] if row["runtime"] == runtime]
            same = {"image_size", "batch", "threads", "variant"} - {name}
            chosen = [r for r in rows if all(r[key] == rows[0][key] for key in same)]
            chosen.sort(key=lambda row: row[name])
            label = f"{RUNTIMES[runtime]}, exponent {found['fits'][runtime][name][kind]:.2f}"
            axis.plot([r[name] for r in chosen], [r[kind] for r in chosen], "o-", label=label)
        axis.set_xscale("log", base=2)
        if kind == "ms":
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        else:
            axis.set_ylim(0, 1.2 * axis.get_ylim()[1])  # room for the legend
        axis.set_xlabel("side of the image" if name == "image_size" else "images a call")
        axis.set_ylabel("milliseconds" if kind == "ms" else "memory, MB")
        axis.set_xticks(sorted({row[name] for row in found["rows"]}))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.tick_params(which="both", labelsize=7)
        axis.tick_params(axis="x", labelrotation=45)
        axis.legend(fontsize=7)
    return figure


def peers(pyplot: Any, found: dict[str, Any]) -> Any:
    """Points: published top-1 over time; a line joins those that nothing alike beats in both."""
    columns = list(found["columns"])
    height = -(-len(columns) // 4)
    size = (13, 1 + 2.8 * height)
    figure, axes = pyplot.subplots(height, -(-len(columns) // height), figsize=size, squeeze=False)
    for axis in axes.flat[len(columns) :]:
        axis.remove()
    for axis, column in zip(axes.flat, columns, strict=False):
        points = sorted(
            (row["over_ours"]["p50"], found["models"][row["model"]]["top1"], row["model"])
            for row in found["rows"]
            if row["column"] == column
        )
        for ratio, top1, name in points:
            marker, color = ("D", "crimson") if name.startswith("SepViT") else ("o", "steelblue")
            axis.plot(ratio, top1, marker, color=color)
            place = {"textcoords": "offset points", "xytext": (3, 4), "fontsize": 7}
            axis.annotate(name, (ratio, top1), **place)
        alike = [point for point in points if not found["models"][point[2]]["note"]]
        best = [p for i, p in enumerate(alike) if all(p[1] > q[1] for q in alike[:i])]
        axis.step([p[0] for p in best], [p[1] for p in best], where="post", color="grey", lw=0.8)
        axis.set_title(column, fontsize=9)
        axis.set_xlabel("time over SepViT-T's", fontsize=8)
        axis.margins(x=0.3, y=0.1)
    for axis in axes[:, 0]:
        axis.set_ylabel("published top-1, %", fontsize=8)
    return figure


# Name of the picture -> data, and what draws it.
PICTURES: dict[str, tuple[Path, Callable[[Any, dict[str, Any]], Any]]] = {
    "claims-block": (DOCS / "data" / "claims" / "block.json", block),
    "claims-scaling": (DOCS / "data" / "claims" / "scaling.json", scaling),
    "peers": (DOCS / "data" / "peers.json", peers),
}


def drawn() -> list[str]:
    """Return the names of the pictures whose data were measured."""
    return [name for name, (data, _) in PICTURES.items() if data.exists()]


def picture(name: str) -> Path:
    """Return the file of a picture."""
    return DOCS / "results" / f"{name}.png"


def is_current(name: str) -> bool:
    """Return whether a picture was drawn from its data as they are."""
    path = picture(name)
    if not path.exists():
        return False
    with Image.open(path) as image:
        return bool(image.info.get(NOTE) == file_sha256(PICTURES[name][0]))


def draw(name: str) -> Path:
    """Draw a picture anew."""
    data, function = PICTURES[name]
    figure = function(load_pyplot(), json.loads(data.read_text("utf-8")))
    figure.tight_layout()
    figure.savefig(picture(name), dpi=110, metadata={NOTE: file_sha256(data)})
    return picture(name)
