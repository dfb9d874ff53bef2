"""The network with time and error, for Google's Model Explorer (ai-edge-model-explorer).

One file has the traced graph, whose nodes lie in stage, block and part; two files have node data
for it: the time of every part, and its distance to the reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from ..files import replacing_file
from ..model.graph import macs_by_operation, part_of
from ..pipeline.taps import TapDistance
from .document import Profile
from .figures import part_behind, part_times_ms

# From low to high, as Model Explorer colours nodes.
_COOL, _WARM = "#ffffff", "#f0935f"


def write_graphs(
    profiles: Sequence[Profile],
    programs: Mapping[str, ExportedProgram],
    by_block: Mapping[str, Sequence[TapDistance]],
    path: Path,
) -> None:
    """Write a graph for each measurement.

    Parameters
    ----------
    profiles : sequence of Profile
        Documents.
    programs : mapping
        Traced programs (`sepvit_edge.profiling.attribution.program_of`), by the digest of the
        package.
    by_block : mapping
        Distances by the digest of the package.
    path : Path
        JSON file of the graphs. Beside it the files with -time and -sqnr in their names are written
        (`node_data_files`).
    """
    graphs, times, distances = [], {}, {}
    for profile in profiles:
        program = programs[profile.package.digest]
        computed = (node for node in program.graph.nodes if node.op == "call_function")
        nodes = [node for node in computed if "val" in node.meta]  # what only asserts has none
        graphs.append(_graph(profile.title, nodes, macs_by_operation(program)))
        results = {part_of(node.name): node.name for node in nodes}  # a part's last operation
        taps = {part_behind(tap.name): tap.sqnr_db for tap in by_block[profile.package.digest]}
        times[profile.title] = _node_data(part_times_ms(profile), results, _COOL, _WARM)
        distances[profile.title] = _node_data(taps, results, _WARM, _COOL)
    documents = [{"label": path.stem, "graphs": graphs}, times, distances]
    for file, document in zip((path, *node_data_files(path)), documents, strict=True):
        with replacing_file(file) as partial:
            partial.write_text(json.dumps(document) + "\n", encoding="utf-8")


def node_data_files(path: Path) -> tuple[Path, Path]:
    """Return the files with times in ms and SQNR in dB that go with a file of graphs."""
    return path.with_stem(f"{path.stem}-time"), path.with_stem(f"{path.stem}-sqnr")


def _graph(title: str, nodes: Sequence[Node], macs: Mapping[str, int]) -> dict[str, Any]:
    known = {node.name for node in nodes}
    return {"id": title, "nodes": [_node(node, known, macs.get(node.name, 0)) for node in nodes]}


def _node(node: Node, known: set[str], macs: int) -> dict[str, Any]:
    facts = {"multiply-accumulates": f"{macs:,}"} if macs else {}
    if isinstance(value := node.meta["val"], Tensor):
        facts["shape"] = " x ".join(map(str, value.shape))
    sources = [source.name for source in node.all_input_nodes if source.name in known]
    return {
        "id": node.name,
        "label": node.name.rpartition("__")[2],
        "namespace": "/".join(_rooms(part_of(node.name))),
        "attrs": [{"key": key, "value": value} for key, value in facts.items()],
        "incomingEdges": [{"sourceNodeId": name} for name in sources],
    }


def _rooms(part: str | None) -> list[str]:
    """Split a part's name into stage, block and part.

    Examples
    --------
    >>> _rooms("stages.2.blocks.4.psa")
    ['stages.2', 'blocks.4', 'psa']
    """
    words = (part or "").split(".")
    rooms: list[str] = []
    for word in words:
        if word.isdigit():
            rooms[-1] += f".{word}"
        else:
            rooms.append(word)
    return rooms


def _node_data(
    values: Mapping[str, float], nodes: Mapping[str | None, str], low: str, high: str
) -> dict[str, Any]:
    """Return node data: the value of a part stands at the operation that gives its result."""
    results = {nodes[part]: {"value": value} for part, value in values.items() if part in nodes}
    gradient = [{"stop": 0, "bgColor": low}, {"stop": 1, "bgColor": high}]
    return {"results": results, "gradient": gradient}
