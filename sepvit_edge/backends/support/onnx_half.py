"""An ONNX model whose products are computed in float16, for CPUs that do that in vectors."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir

# ONNX Runtime has float16 kernels on arm64 for more, but takes two to four times as many
# instructions for those as in float32: LayerNormalization, Add, Attention, Softmax.
COMPUTED = ("Conv", "Gelu", "Gemm", "MatMul")
# They move what they are given.
MOVING = ("Concat", "Reshape", "Slice", "Split", "Transpose")
_HALF, _FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def compute_half(model: ir.Model) -> None:
    """Let every product, convolution and GELU read and write float16, in place.

    What is between two of them and only moves numbers is float16 too. Sums of several layers,
    norms and attention stay float32, and so does what the model returns.
    """
    casts = _Casts(model.graph)
    for node in list(model.graph):
        if node.op_type == "Gemm":
            _straighten(model.graph, node)
        moved = node.op_type in MOVING and node.inputs[0] in casts.halves
        if any(value.is_graph_output() for value in node.outputs):
            half = False
        else:
            half = node.op_type in COMPUTED or moved
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (_HALF, _FLOAT):
                node.replace_input_with(index, casts.of(value, half, node))
        if half:
            for output in node.outputs:
                output.type = ir.TensorType(_HALF)
                casts.halves.add(output)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():
            del model.graph.initializers[name]


def _straighten(graph: ir.Graph, node: ir.Node) -> None:
    """Store the weights of a ``Gemm`` as it multiplies them: its float16 kernel is for no others.

    With transB, ONNX Runtime 1.31 takes 400 times the instructions.
    """
    if not node.attributes.get_int("transB", 0):
        return
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    turned = np.ascontiguousarray(weight.const_value.numpy().T)
    node.replace_input_with(1, _stored(graph, f"{weight.name}_turned", turned))
    node.attributes.pop("transB")


def _stored(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    known = graph.initializers.get(name)
    if known is not None:
        return known
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor)
    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


class _Casts:
    """Values in the other type, each made once.

    Attributes
    ----------
    halves : set of Value
        Values that a node writes as float16.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[ir.Value, ir.Value] = {}
        self.halves: set[ir.Value] = set()

    def of(self, value: ir.Value, half: bool, reader: ir.Node) -> ir.Value:
        """Return a value as float16, or as float32."""
        if half == (value in self.halves):
            return value
        if value not in self._made:
            self._made[value] = self._cast(value, half, reader)
        return self._made[value]

    def _cast(self, value: ir.Value, half: bool, reader: ir.Node) -> ir.Value:
        name = re.sub(r"\W", "_", f"{value.name}_{'half' if half else 'float'}")
        if half and value.const_value is not None:
            return _stored(self._graph, name, value.const_value.numpy().astype(np.float16))
        cast = ir.node("Cast", [value], {"to": _HALF if half else _FLOAT})
        cast.name, cast.outputs[0].name = name, name
        cast.outputs[0].type = ir.TensorType(_HALF if half else _FLOAT)
        cast.outputs[0].shape = value.shape
        self._graph.insert_before(reader, cast)
        return cast.outputs[0]
