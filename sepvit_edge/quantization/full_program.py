"""The program of full int8: every tensor of a traced edge model quantised and dequantised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from ..errors import SepViTError
from ..model.edge.make import EdgeGraph
from ..model.graph import trace
from ..model.quantized import WEIGHT_LIMIT
from .qparams import QParams, accumulator_qparams, row_qparams
from .scheme import (
    BIAS_RANGE,
    LayerFunction,
    bias_integers,
    quantizable_layers,
    quantize_weight,
    weight_scales,
)

_ATEN = torch.ops.aten
_OPS = torch.ops.quantized_decomposed
# Operations that only move values.
MOVES = {
    _ATEN.view.default,
    _ATEN.permute.default,
    _ATEN.slice.Tensor,
    _ATEN.cat.default,
    _ATEN.clone.default,
    _ATEN.amax.default,
}
# Products with a constant: the model's layers, and rows of ones or 1 / C in place of sums.
LAYERS = frozenset({_ATEN.linear.default, _ATEN.convolution.default})
# Pixels as they are: 0-255 becomes -128 to 127.
_PIXELS = QParams(1.0, -128)
_PIXELS_UINT8 = (1.0, 0, 0, 255, torch.uint8)


def constants_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Return the values of the placeholders in front of the input, in the order of the graph."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return {placeholder: program.state_dict[name] for placeholder, name in names.items()}


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float32


def tensor_groups(program: ExportedProgram) -> dict[Node, int]:
    """Number every float tensor that is quantised; those with one number share their parameters.

    Weights and biases are not among them: their parameters follow from themselves.
    """
    apart = set()
    for node in program.graph.nodes:
        if node.target in LAYERS:
            apart |= set(node.args[1:3])
        elif str(node.target).startswith("quantized_decomposed."):
            apart |= {node, *node.all_input_nodes}
        elif node.target is _ATEN._to_copy.default:  # of pixels
            apart.add(node)
    groups: dict[Node, int] = {}
    for number, node in enumerate(program.graph.nodes):
        if node.op == "output" or node in apart or not _is_float(node):
            continue
        groups[node] = number
        if node.target in MOVES:
            joined = {groups[source] for source in node.all_input_nodes if source in groups}
            groups = {n: number if g in joined else g for n, g in groups.items()}
    return groups


class _Int8Weights(nn.Module):
    """A linear or convolution with int8 weights and an int32 bias."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, input_scale: float) -> None:
        super().__init__()
        self.function = LayerFunction(layer)
        scale = weight_scales(layer.weight)
        self.weight = nn.Buffer(quantize_weight(layer.weight, scale))
        self.weight_scale = nn.Buffer(scale)
        self.zero_points = nn.Buffer(torch.zeros(len(scale), dtype=torch.int64))
        assert layer.bias is not None
        self.bias_scale = nn.Buffer(scale * input_scale)
        integers = bias_integers(layer.bias.double(), self.bias_scale.double())
        self.bias = nn.Buffer(integers.to(torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer; shapes as of the float layer."""
        weight = _OPS.dequantize_per_channel(
            self.weight,
            self.weight_scale,
            self.zero_points,
            0,
            -WEIGHT_LIMIT,
            WEIGHT_LIMIT,
            torch.int8,
        )
        bias = _OPS.dequantize_per_channel(
            self.bias, self.bias_scale, self.zero_points, 0, *BIAS_RANGE, torch.int32
        )
        return self.function(x, weight, bias)


def quantized_program(
    edge: EdgeGraph, qparams: Mapping[str, QParams], input_scales: Mapping[str, float]
) -> ExportedProgram:
    """Trace an edge model with every tensor quantised; the edge model is changed in place.

    Parameters
    ----------
    edge : EdgeModel or RegionModel
        The float model.
    qparams : dict
        Parameters by the name of the traced operation that computes the tensor, or of the constant.
    input_scales : dict
        Scale of the input of each linear and convolution, by the operation's name.

    Raises
    ------
    SepViTError
        If the parameters belong to another model or another edge form.
    """
    for name, layer in quantizable_layers(edge).items():
        kind = "linear" if isinstance(layer, nn.Linear) else "convolution"
        operation = f"{name.replace('.', '_')}__{kind}"
        if operation not in input_scales:
            raise SepViTError(f"the quantisation does not fit the model: {name}")
        scale = input_scales[operation]
        edge.set_submodule(name, _Int8Weights(layer, scale))
    program = trace(edge)
    pixels = _take_pixels(program)
    groups = tensor_groups(program)
    by_group = {groups[pixels]: _PIXELS}
    by_group |= {groups[node]: qparams[node.name] for node in groups if node.name in qparams}
    for node in groups:
        if groups[node] not in by_group:
            raise SepViTError(f"the quantisation does not fit the model: {node.name}")
    for node in [node for node in program.graph.nodes if node.target in LAYERS]:
        _quantize_row(program, node, by_group[groups[node.args[0]]].scale)
    for node, group in groups.items():
        if node.op == "placeholder":
            _quantize_constant(program, node, by_group[group])
        else:
            _quantize_node(node, by_group[group])
    program.graph_module.recompile()
    return program


def _after(node: Node, target: Any, arguments: tuple[Any, ...], name: str) -> Node:
    """Insert an operation behind a node; readers of the node stay as they are."""
    graph = node.graph
    with graph.inserting_after(node):
        made = graph.call_function(target, (node, *arguments))
    made._rename(name)
    made.meta = dict(node.meta)
    made.meta["val"] = target(node.meta["val"], *arguments)
    return made


def _read_instead(node: Node, made: Node, own: tuple[Node, ...]) -> None:
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user not in own)


def _quantize_node(node: Node, qparams: QParams) -> None:
    """Quantise and dequantise a tensor for all its readers."""
    quantized = _after(
        node, _OPS.quantize_per_tensor.default, qparams.arguments, f"{node.name}_quantize"
    )
    restored = _after(
        quantized, _OPS.dequantize_per_tensor.default, qparams.arguments, f"{node.name}_dequantize"
    )
    _read_instead(node, restored, (quantized,))


def _quantize_constant(program: ExportedProgram, node: Node, qparams: QParams) -> None:
    """Store a constant as integers, and dequantise it for all its readers."""
    signature = program.graph_signature
    key = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}[node.name]
    integers = qparams.integers(program.state_dict[key].detach())
    parameter = node.name in signature.inputs_to_parameters
    program.state_dict[key] = nn.Parameter(integers, False) if parameter else integers
    node.meta["val"] = node.meta["val"].to(integers.dtype)
    restored = _after(
        node, _OPS.dequantize_per_tensor.default, qparams.arguments, f"{node.name}_dequantize"
    )
    _read_instead(node, restored, (restored,))


def _quantize_row(program: ExportedProgram, node: Node, input_scale: float) -> None:
    """Quantise the constants of a product that is not a layer; two products may share a row."""
    weight, *bias = (argument for argument in node.args[1:3] if isinstance(argument, Node))
    if weight.op == "placeholder":
        _quantize_constant(program, weight, row_qparams(constants_of(program)[weight.name]))
    for constant in bias:
        if constant.op == "placeholder":
            weight_scale: Any = node.args[1].args[1]  # type: ignore[union-attr]
            _quantize_constant(program, constant, accumulator_qparams(input_scale, weight_scale))


def _take_pixels(program: ExportedProgram) -> Node:
    """Replace the cast of uint8 pixels by their quantisation; return the pixels' permutation."""
    cast = next(n for n in program.graph.nodes if n.target is _ATEN._to_copy.default)
    permuted = cast.args[0]
    pixels = permuted.args[0]
    exact = _after(pixels, _OPS.dequantize_per_tensor.default, _PIXELS_UINT8, "input__pixels")
    quantized = _after(
        exact, _OPS.quantize_per_tensor.default, _PIXELS.arguments, "input__pixels_quantize"
    )
    restored = _after(
        quantized, _OPS.dequantize_per_tensor.default, _PIXELS.arguments, "input__pixels_dequantize"
    )
    _read_instead(pixels, restored, (exact,))
    permuted.meta["val"] = cast.meta["val"]
    cast.replace_all_uses_with(permuted)
    program.graph.erase_node(cast)
    for node in list(permuted.users):  # that the pixels are uint8
        if node.target is _ATEN._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    return permuted
