"""The traced edge model, with names that say where in the network each operation belongs.

A runtime keeps the names of the graph it was given. Here every node is named after its module, as
in ``stages_2_blocks_4_psa_q__linear``; so whatever a runtime reports (placement, op timings, a
block that leaves the reference) is attributed to stage, block and part by its name alone.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from .edge.make import EdgeGraph

_ATEN = torch.ops.aten
# Operations that are not decomposed: every runtime has a kernel for them.
WHOLE = (_ATEN.linear.default, _ATEN.upsample_bilinear2d.vec)
_PART = re.compile(
    r"(?P<input>input)"
    # Some runtimes name nodes after outputs.
    r"|(?P<head>head|logits|class_logits|box_deltas|proposal_)"
    r"|(?P<neck>neck|pyramid_)"
    r"|(?P<box_head>box_head|region_class_logits|region_box_deltas)"
    r"|(?P<mask_head>mask_head|region_mask_logits)"
    r"|stages_(?P<stage>\d)_(?:(?P<sub>patch_embedding|cpe|norm)"
    r"|blocks_(?P<block>\d+)(?:_(?P<part>dsa|psa|proj|mlp))?)"
)


def trace(model: EdgeGraph) -> ExportedProgram:
    """Trace an edge model into a static graph of core ATen operations with telling names.

    Parameters
    ----------
    model : EdgeModel or RegionModel
        With its batch and image size fixed.

    Returns
    -------
    torch.export.ExportedProgram
        Linears and bilinear resizing are kept whole.
    """
    table = torch.export.default_decompositions()
    for whole in WHOLE:
        table.pop(whole, None)
    with warnings.catch_warnings():
        # torch 2.13 copies its own deprecated tree specs.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(model, (model.example_input(),))
        program = program.run_decompositions(table)
    _share_quantized(program)
    name_nodes(program)
    return program


def _share_quantized(program: ExportedProgram) -> None:
    """Quantise a tensor once for all its readers with one scale, as q, k and v; in place."""
    first: dict[tuple[object, ...], Node] = {}
    for node in list(program.graph.nodes):
        if node.op == "call_function" and str(node.target).startswith("quantized_decomposed."):
            known = first.setdefault((node.target, *node.args), node)
            if known is not node:
                node.replace_all_uses_with(known)
                program.graph.erase_node(node)


def name_nodes(program: ExportedProgram) -> None:
    """Rename the node of every operation to ``module_path__operation``, in place."""
    outputs = {spec.arg.name: spec.arg for spec in program.graph_signature.output_specs}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        stack = list(node.meta.get("nn_module_stack", {}).values())
        path = stack[-1][0].removeprefix("L['self'].") if stack else ""
        operation = getattr(node.target, "__name__", "op").split(".")[0].strip("_")
        output = outputs.get(node.name)
        node._rename(re.sub(r"\W", "_", f"{path}__{operation}"))
        if output is not None:
            output.name = node.name
    program.graph_module.recompile()


def part_of(name: str) -> str | None:
    """Return the part of the network that an operation belongs to, from its name.

    Examples
    --------
    >>> part_of("stages_2_blocks_4_psa_q__linear")
    'stages.2.blocks.4.psa'
    >>> part_of("stages_1_blocks_0__add")
    'stages.1.blocks.0'

    Returns
    -------
    str or None
        ``"input"``, ``"stages.0.patch_embedding"``, ``"stages.2.blocks.4.psa"``,
        ``"stages.2.blocks.4"`` (window order and residual), ``"stages.0.cpe"``, ``"stages.0.norm"``
        (of a dense model), ``"neck"``, ``"head"``, ``"box_head"``, ``"mask_head"``; None if the
        name does not come from a traced graph.
    """
    match = _PART.match(name)
    if match is None:
        return None
    if match.lastgroup in ("input", "head", "neck", "box_head", "mask_head"):
        return match.lastgroup
    if match["sub"]:
        return f"stages.{match['stage']}.{match['sub']}"
    block = f"stages.{match['stage']}.blocks.{match['block']}"
    return f"{block}.{match['part']}" if match["part"] else block


def macs_by_operation(program: ExportedProgram) -> Counter[str]:
    """Count the multiply-accumulates of every node, by its name; nodes without any are left out.

    As in torch's FLOP counter these are linears, convolutions and matrix products. Linears with one
    output stand for a mean (edge form, principle 8), which is not counted.
    """
    macs: Counter[str] = Counter()
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is _ATEN.linear.default:
            weight = _shape(node.args[1])
            if weight[0] > 1:
                macs[node.name] = math.prod(_shape(node)) * weight[1]
        elif node.target is _ATEN.convolution.default:
            macs[node.name] = math.prod(_shape(node)) * math.prod(_shape(node.args[1])[1:])
        elif node.target in (_ATEN.bmm.default, _ATEN.mm.default):
            macs[node.name] = math.prod(_shape(node)) * _shape(node.args[0])[-1]
    return macs


def _shape(node: object) -> tuple[int, ...]:
    assert isinstance(node, Node)
    return tuple(int(side) for side in node.meta["val"].shape)
