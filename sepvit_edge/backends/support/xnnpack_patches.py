"""Patches of ExecuTorch's XNNPACK backend, for as long as a model is lowered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from .executorch_graph import kind_of
from .vendor import VendorPatch

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_VERSION = "executorch 1.4.1"
_TESTS = "tests/runtimes/test_executorch.py"
_PASS_MANAGER = VendorPatch(
    "executorch.backends.xnnpack.xnnpack_preprocess:XNNPACKPassManager",
    _VERSION,
    "each pass walks the whole graph, also those for operations that no edge model has: three "
    "times as long for the same bytes",
    f"{_TESTS}::test_another_process_and_the_documented_route_give_the_same_bytes",
)
_SERIALIZER = VendorPatch(
    "executorch.backends.xnnpack.xnnpack_preprocess:serialize_xnnpack_binary",
    _VERSION,
    "transposes around every convolution that cancel each other stay in the program",
    f"{_TESTS}::test_transposes_that_move_nothing_are_left_out",
)
_PARAM_TENSOR = VendorPatch(
    "executorch.backends.xnnpack.operators.node_visitor:get_param_tensor",
    _VERSION,
    "float16 weights between float32 activations are not supported, though XNNPACK has kernels",
    f"{_TESTS}::test_fp16_stores_linears_in_half",
)
_DATATYPE = VendorPatch(
    "executorch.backends.xnnpack.operators.node_visitor:NodeVisitor.get_serialized_dtype",
    _VERSION,
    "the other half of the same: the dtype that is written with those weights",
    f"{_TESTS}::test_fp16_stores_linears_in_half",
)
_PARTITIONS = VendorPatch(
    "executorch.backends.xnnpack.partition.xnnpack_partitioner:"
    "XnnpackPartitioner.generate_partitions",
    _VERSION,
    "its own grouping starts another delegate at every GELU between two quantised layers "
    "(overridden in a subclass)",
    "tests/unit/test_quantize.py::test_executorch_keeps_one_delegate",
)
PATCHES = (_PASS_MANAGER, _SERIALIZER, _PARAM_TENSOR, _DATATYPE, _PARTITIONS)


def partitioner() -> Any:
    """Return XNNPACK's partitioner, with as few delegates as the graph allows."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir.backend.canonical_partitioners.pattern_op_partitioner import (
        generate_partitions_from_list_of_nodes,
    )

    class LargestPartitions(XnnpackPartitioner):
        def generate_partitions(self, ep: ExportedProgram) -> Any:
            matched = self.get_matched_nodes_from_configs(ep)
            return generate_partitions_from_list_of_nodes(ep.graph_module, matched)

    return LargestPartitions()


def few_passes() -> AbstractContextManager[Any]:
    """Leave out XNNPACK's passes for operations that no edge model has."""
    from executorch.backends.xnnpack import _passes

    needed = [
        _passes.XNNPACKRemoveCloneOpsTransform,
        _passes.DimOrderOpsRevertPass,
        # A ReLU between an int8 layer and its rounding: XNNPACK cannot create the two apart.
        _passes.FuseActivationPass,
        _outputs_apart(),
        _passes.ChannelsLastTaggedReshapePass,
        _passes.RemoveRedundantCopyPass,
    ]

    def manager(program: ExportedProgram, passes: object) -> Any:
        return _passes.XNNPACKPassManager(program, needed)

    return _PASS_MANAGER.replaced_by(manager)


def _outputs_apart() -> type:
    """Return a pass that gives each output a dequantisation of its own.

    `ChannelsLastTaggedReshapePass` transposes a dequantised tensor for an output, and hands the
    transposed one to everything else that reads the tensor: a convolution then takes columns for
    channels.
    """
    from executorch.backends.xnnpack._passes.xnnpack_pass import XNNPACKPass
    from executorch.backends.xnnpack.utils.quant_utils import is_dequant
    from executorch.exir.pass_base import PassResult

    class OutputsApart(XNNPACKPass):
        def call(self, graph_module: Any) -> Any:
            output = graph_module.graph.output_node()
            for value in output.all_input_nodes:
                if is_dequant(value) and len(value.users) > 1:
                    with graph_module.graph.inserting_before(output):
                        own = graph_module.graph.node_copy(value)
                    output.replace_input_with(value, own)
            graph_module.recompile()
            return PassResult(graph_module, True)

    return OutputsApart


def few_transposes() -> AbstractContextManager[Any]:
    """Leave transposes that move nothing out of the XNNPACK graph."""
    serialize = _SERIALIZER.original()

    def fewer(graph: Any, constants: bytearray) -> bytes:
        _leave_out_transposes(graph)
        return bytes(serialize(graph, constants))

    return _SERIALIZER.replaced_by(fewer)


def _leave_out_transposes(graph: Any) -> None:
    """Change an ``XNNGraph`` in place; exact.

    XNNPACK's convolutions are channels-last, and so are the edge form's rows. Torch's are
    channels-first: the edge form transposes around each of them, ExecuTorch transposes back, and
    every such pair goes. So does a transpose of axes that are 1 long, as of a single head: it is
    a reshape.
    """
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
        XNNStaticReshape,
        XNNStaticTranspose,
    )

    values = (getattr(v.xvalue_union, "tensor_value", v.xvalue_union) for v in graph.xvalues)
    shapes = {value.id_out: value.dims for value in values}
    transposes: dict[int, Any] = {}  # by output
    same: dict[int, int] = {}  # output of a pair -> its input
    kept, used = [], set(graph.output_ids)
    for node in graph.xnodes:
        operation = node.xnode_union
        for key in _inputs(operation):
            given = getattr(operation, key)
            setattr(operation, key, same.get(given, given))
        if isinstance(operation, XNNStaticTranspose):
            order, shape = list(operation.perm), shapes[operation.input_id]
            before = transposes.get(operation.input_id)
            if (
                before is not None
                and [before.perm[axis] for axis in order] == sorted(order)
                and operation.output_id not in used
            ):
                same[operation.output_id] = before.input_id
                continue
            moved = [axis for axis in order if shape[axis] > 1]
            if moved == sorted(moved):
                ends = operation.input_id, operation.output_id
                shape = [shape[axis] for axis in order]
                operation = XNNStaticReshape(len(shape), shape, *ends, operation.flags)
                node.xnode_union = operation
            else:
                transposes[operation.output_id] = operation
        used.update(getattr(operation, key) for key in _inputs(operation))
        kept.append(node)
    idle = transposes.keys() - used  # the first ones of the pairs
    graph.xnodes = [node for node in kept if vars(node.xnode_union).get("output_id") not in idle]


def _inputs(operation: Any) -> list[str]:
    """Return the names of the fields that hold an ``XNNGraph`` operation's inputs."""
    return [key for key in vars(operation) if key.endswith("_id") and key != "output_id"]


@contextmanager
def half_weights() -> Iterator[None]:
    """Store the weights of linears as float16; XNNPACK widens them when it loads them.

    XNNPACK has kernels for float16 weights between float32 activations, but ExecuTorch's
    partitioner wants one dtype for all operands: so the delegate is written with another dtype
    than the graph has. With everything in float16, every GELU would be outside the delegate.
    """
    from executorch.backends.xnnpack.operators import node_visitor

    get_tensor, get_datatype = _PARAM_TENSOR.original(), _DATATYPE.original()

    def is_weight(node: Node) -> bool:
        # The 1 / C of the means (one output) stays exact: its error would not average out.
        users = [user for user in node.users if kind_of(user) == "linear"]
        return any(user.args[1] is node and node.meta["val"].shape[0] > 1 for user in users)

    def tensor(program: ExportedProgram, node: Node) -> torch.Tensor:
        value: torch.Tensor = get_tensor(program, node)
        return value.half() if is_weight(node) else value

    def datatype(self: Any, quantization: Any, node: Node, force_fp32: bool = False) -> Any:
        if is_weight(node):
            return node_visitor.XNNDatatype.xnn_datatype_fp16
        return get_datatype(self, quantization, node, force_fp32)

    with _PARAM_TENSOR.replaced_by(tensor), _DATATYPE.replaced_by(datatype):
        yield
