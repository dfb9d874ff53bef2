"""Turn a traced float32 program into float16, for converters that take precision as it is."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import tree_map

from .subnormal import DOWN, INPUT_NAME, UP

_ATEN = torch.ops.aten


def halved(program: ExportedProgram) -> ExportedProgram:
    """Return a copy that computes in float16, between float32 inputs and outputs.

    Everything in front of the first convolution stays float32, and a factor moves from that
    convolution's weights to its input (`subnormal`). Integers stay as they are, and so do names.

    Parameters
    ----------
    program : ExportedProgram
        A traced edge model; its first convolution is in float, as the scheme has it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch copies its own deprecated tree specs
        program = copy.deepcopy(program)
    signature, nodes = program.graph_signature, list(program.graph.nodes)
    first = next(node for node in nodes if node.target is _ATEN.convolution.default)
    before = set(nodes[: nodes.index(first)])
    pixels, weight = first.args[:2]
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    program.state_dict[names[weight.name]] = _times(program.state_dict[names[weight.name]], UP)
    for node in nodes:
        if node.op != "placeholder":
            if node not in before:
                node.meta["val"] = tree_map(_half, node.meta.get("val"))
        elif node.name in names and not before.issuperset(node.users):
            program.state_dict[names[node.name]] = _half(program.state_dict[names[node.name]])
            node.meta["val"] = _half(node.meta["val"])

    scaled = _behind(pixels, INPUT_NAME, _ATEN.mul.Tensor, float(DOWN))
    rounded = _behind(scaled, "input__half", _ATEN._to_copy.default, dtype=torch.float16)
    first.replace_input_with(pixels, rounded)
    by_name = {node.name: node for node in nodes}
    (output,) = program.graph.find_nodes(op="output")
    for spec in signature.output_specs:
        node = by_name[spec.arg.name]
        answer = _behind(node, f"{node.name}_single", _ATEN._to_copy.default, dtype=torch.float32)
        output.replace_input_with(node, answer)
        spec.arg.name = answer.name
    program.graph_module.recompile()
    return program


def _half(value: Any) -> Any:
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return value
    half = value.detach().half()
    return nn.Parameter(half) if isinstance(value, nn.Parameter) else half


def _times(value: Tensor, factor: float) -> Tensor:
    product = value.detach() * float(factor)
    return nn.Parameter(product) if isinstance(value, nn.Parameter) else product


def _behind(node: Node, name: str, target: Any, *arguments: Any, **keywords: Any) -> Node:
    """Insert an operation behind a node; its readers stay as they are."""
    with node.graph.inserting_after(node):
        made = node.graph.call_function(target, (node, *arguments), keywords)
    made._rename(name)
    made.meta = dict(node.meta)
    made.meta["val"] = target(node.meta["val"], *arguments, **keywords)
    return made
