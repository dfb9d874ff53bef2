"""ExecuTorch with its XNNPACK delegate: model.pte."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import executorch  # noqa: F401  (its parts, which take seconds, are imported where they are used)
import numpy as np
import torch

from ..errors import SepViTError
from ..model.graph import macs_by_operation, part_of
from ..package.manifest import Manifest, OutsideOp, PlacedOps, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session, check_input

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

MODEL = "model.pte"
# Calls in a lowered program that run no kernel of their own.
_NO_WORK = frozenset({"alloc", "executorch_call_delegate", "getitem", "view"})
# Beginnings of lines that the runtime logs at its start, right or wrong.
_CHATTER = ("[cpuinfo_utils.cpp", "[threadpool.cpp")
_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.int8: "int8"}
# What XNNPACK's partitioner does not say itself, or says in other words.
_REASONS = {
    "native_layer_norm": 'XNNPACK has no layer_norm; set form = "xnnpack" in [edge]',
    "expand_copy": "XNNPACK has no expand, which a matrix product of rank 4 needs; use bmm",
    "invalid dtype": 'XNNPACK computes no integers; set form = "xnnpack" in [edge]',
}


class ExecuTorchBackend:
    """The backend; see `sepvit_edge.backends.interface.Backend`."""

    target = "executorch"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Lower to XNNPACK, and what it refuses to ExecuTorch's portable kernels.

        `to_edge_transform_and_lower` is the documented route: it decomposes three times more, to
        learn what the partitioner wants kept whole. The traced program needs none of that; without
        it and with `_few_passes` the same bytes (tests) take a third of the time, as long as the
        transposes that `few_transposes` leaves out are in both.
        """
        for key in job.recipe.options:
            raise SepViTError(f"the recipe's options: {key} is not a known key")
        weights = _half_weights if job.recipe.precision == "fp16" else nullcontext
        with quiet(), _few_passes(), few_transposes(), weights(), _refusals() as refusals:
            program = write_program(job, partitioner(), folder)
        return delegation(program, job, "XNNPACK", "CPU", refusals)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> ExecuTorchSession:
        """Load for the CPU."""
        return ExecuTorchSession(folder, manifest.input.shape, threads)

    def verification(self) -> Verification:
        """XNNPACK is part of every wheel."""
        return "run"


def write_program(job: LoweringJob, partitioner: Any, folder: Path) -> ExportedProgram:
    """Lower a job to the delegate of a partitioner, what it refuses to portable kernels; write it.

    Returns
    -------
    torch.export.ExportedProgram
        The lowered program, for `delegation`.
    """
    from executorch.exir import EdgeCompileConfig, to_edge

    config = EdgeCompileConfig(
        preserve_ops=[torch.ops.aten.linear.default], _check_ir_validity=False
    )
    edge = to_edge(job.program, compile_config=config)
    program = edge.to_backend(partitioner).to_executorch()
    with (folder / MODEL).open("wb") as file:
        program.write_to_file(file)
    return program.exported_program()


def partitioner() -> Any:
    """XNNPACK's partitioner, with all that it takes in as few delegates as the graph allows.

    Its own grouping starts another delegate at every GELU between two quantised layers.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir.backend.canonical_partitioners.pattern_op_partitioner import (
        generate_partitions_from_list_of_nodes,
    )

    class LargestPartitions(XnnpackPartitioner):
        def generate_partitions(self, ep: ExportedProgram) -> Any:
            matched = self.get_matched_nodes_from_configs(ep)
            return generate_partitions_from_list_of_nodes(ep.graph_module, matched)

    return LargestPartitions()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the tool chain's notices about its own code off the terminal."""
    root, placeholder = logging.getLogger(), logging.NullHandler()
    pytree = logging.getLogger("torch.utils._pytree")
    disabled = pytree.disabled
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"This API is experimental")
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        pytree.disabled = True  # torchao registers an enumeration in a deprecated way
        root.addHandler(placeholder)  # or executorch's import would configure logging for everyone
        try:
            yield
        finally:
            root.removeHandler(placeholder)
            pytree.disabled = disabled


def _few_passes() -> AbstractContextManager[Any]:
    """Leave out XNNPACK's passes for what no edge model has: each of them walks the whole graph."""
    from executorch.backends.xnnpack import _passes, xnnpack_preprocess

    needed = [
        _passes.XNNPACKRemoveCloneOpsTransform,
        _passes.DimOrderOpsRevertPass,
        _passes.ChannelsLastTaggedReshapePass,
        _passes.RemoveRedundantCopyPass,
    ]

    def manager(program: ExportedProgram, passes: object) -> Any:
        return _passes.XNNPACKPassManager(program, needed)

    return patch.object(xnnpack_preprocess, "XNNPACKPassManager", manager)


def few_transposes() -> AbstractContextManager[Any]:
    """Leave out of what is written for XNNPACK the transposes that move nothing."""
    from executorch.backends.xnnpack import xnnpack_preprocess

    serialize = xnnpack_preprocess.serialize_xnnpack_binary

    def fewer(graph: Any, constants: bytearray) -> bytes:
        _leave_out_transposes(graph)
        return bytes(serialize(graph, constants))

    return patch.object(xnnpack_preprocess, "serialize_xnnpack_binary", fewer)


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
    transposes: dict[int, Any] = {}  # by what they give
    same: dict[int, int] = {}  # what a pair gives, and what it was given
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
    """Names of the fields that hold what an operation of an ``XNNGraph`` reads."""
    return [key for key in vars(operation) if key.endswith("_id") and key != "output_id"]


@contextmanager
def _half_weights() -> Iterator[None]:
    """Store the weights of linears as float16; XNNPACK widens them when it loads them.

    XNNPACK has kernels for float16 weights between float32 activations, but ExecuTorch's
    partitioner wants one dtype for all operands: so the delegate is written with another dtype
    than the graph has. All in float16 instead, every GELU would be outside the delegate.
    """
    from executorch.backends.xnnpack.operators import node_visitor

    visitor = node_visitor.NodeVisitor
    get_tensor, get_datatype = node_visitor.get_param_tensor, visitor.get_serialized_dtype

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

    with (
        patch.object(node_visitor, "get_param_tensor", tensor),
        patch.object(visitor, "get_serialized_dtype", datatype),
    ):
        yield


@contextmanager
def _refusals() -> Iterator[list[tuple[Node, str]]]:
    """Collect the nodes that XNNPACK's partitioner refuses, with the reasons that it logs."""
    refused: list[tuple[Node, str]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            why: Any = record.msg  # a WhyNoPartition of executorch.exir.backend.utils, or a text
            if getattr(why, "node", None) is not None:
                refused.append((why.node, why.reason))

    logger, collector = logging.getLogger("executorch.backends.xnnpack.partition"), Collector()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield refused
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
        logger.propagate = propagate


def delegation(
    program: ExportedProgram,
    job: LoweringJob,
    delegate: str,
    device: str,
    refusals: Sequence[tuple[Node, str]] = (),
    half: bool = False,
) -> Placement:
    """Read a lowered program back; its nodes remember which node of the job they came from.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        What `write_program` gave.
    job : LoweringJob
        What was lowered.
    delegate, device : str
        What people call the delegate, and what it runs on.
    refusals : sequence of (Node, str)
        Nodes that the partitioner refused, with its reasons.
    half : bool
        Whether the delegate computes in float16 what is float32 in the graph.
    """
    names = {node.name for node in job.program.graph.nodes if node.op == "call_function"}
    reasons = {_origin(node, names): reason for node, reason in refusals}
    delegates = [
        getattr(program.graph_module, n.target) for n in program.graph.nodes if n.op == "get_attr"
    ]
    inside = [node for delegate in delegates for node in operations(delegate.original_module)]
    outside = operations(program)
    one = len(delegates) == 1
    where = f"{delegate} delegate" if one else f"{len(delegates)} {delegate} delegates"
    macs = macs_by_operation(job.program)
    total = sum(macs.values())
    placed = []
    for place, nodes in ((where, inside), ("portable kernels", outside)):
        for stated in sorted({_precision(node) for node in nodes}):
            group = [node for node in nodes if _precision(node) == stated]
            precision = "fp16" if half and nodes is inside and stated == "fp32" else stated
            share = sum(macs.pop(_origin(node, names), 0) for node in group) / total
            placed.append(
                PlacedOps(
                    where=place,
                    precision=precision,
                    accelerated=nodes is inside,
                    ops=len(group),
                    macs_share=round(share, 4),
                    kinds=dict(sorted(Counter(map(kind_of, group)).items())),
                )
            )
    return Placement(
        device=device,
        placed=placed,
        outside=tuple(_outside(node, _origin(node, names), reasons, delegate) for node in outside),
        macs_unattributed=round(sum(macs.values()) / total, 4),
    )


def operations(program: ExportedProgram) -> list[Node]:
    """Calls of a lowered program that run a kernel."""
    nodes = (node for node in program.graph.nodes if node.op == "call_function")
    return [node for node in nodes if kind_of(node) not in _NO_WORK]


def kind_of(node: Node) -> str:
    """``aten.linear.default`` and ``linear.out`` are both ``linear``."""
    names = str(getattr(node.target, "__name__", node.target)).split(".")
    return names[-2] if len(names) > 1 else names[0]


def _precision(node: Node) -> str:
    value = node.meta["val"]
    dtype = (value[0] if isinstance(value, (tuple, list)) else value).dtype
    return _PRECISIONS.get(dtype, str(dtype).removeprefix("torch."))


def _origin(node: Node, names: set[str]) -> str:
    """Name of the job's node that a lowered node came from, by torch's record; else its own."""
    sources = list(node.meta.get("from_node", ()))
    while sources:
        source = sources.pop()
        if source.name in names:
            return str(source.name)
        sources += source.from_node
    return node.name


def _outside(node: Node, name: str, reasons: dict[str, str], delegate: str) -> OutsideOp:
    kind = kind_of(node)
    said = reasons.get(name)
    reason = f"{delegate} has no {kind.strip('_')}"
    if said:
        reason = f"{delegate}'s partitioner says: {said}"
    if delegate == "XNNPACK":
        reason = _REASONS.get(said or kind, reason)
    return OutsideOp(name=name, kind=kind, part=part_of(name), reason=reason)


@contextmanager
def _native_log() -> Iterator[list[str]]:
    """Catch what the C++ runtime writes to standard error, some of it through Python's stream."""
    lines: list[str] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as file, redirect_stderr(file):
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().splitlines()


# ExecuTorch has one thread pool a process, and a loaded model keeps a pointer to it: another size
# is another pool, and a model that was loaded before hangs or crashes on its next run.
_sessions: weakref.WeakSet[ExecuTorchSession] = weakref.WeakSet()


@cache
def _own_choice() -> int:
    from executorch.extension.pybindings import portable_lib

    return int(portable_lib._threadpool_get_thread_count())


def _set_threads(threads: int | None) -> None:
    from executorch.extension.pybindings import portable_lib

    own_choice, current = _own_choice(), portable_lib._threadpool_get_thread_count()
    wanted = threads or own_choice
    if wanted == current or (threads is None and _sessions):
        return
    if _sessions:
        raise SepViTError(
            f"ExecuTorch has {current} threads while a package of it is open in this process; "
            f"close that one, or open this one with {wanted} in another process"
        )
    portable_lib._unsafe_reset_threadpool(wanted)


class ExecuTorchSession(Session):
    """A loaded program; see `sepvit_edge.backends.interface.Session`."""

    def __init__(self, folder: Path, shape: list[int], threads: int | None) -> None:
        with quiet():
            from executorch.runtime import Runtime
        self._shape = tuple(shape)
        log: list[str] = []
        try:
            with _native_log() as log:
                _set_threads(threads)
                self._program = Runtime.get().load_program(folder / MODEL)
                self._method = self._program.load_method("forward")
        except (RuntimeError, KeyError) as error:
            said = [line.partition("] ")[2] for line in log if not line.startswith(_CHATTER)]
            reason = said[0] if said else error
            raise SepViTError(
                f"ExecuTorch cannot load {folder / MODEL}, export again: {reason}"
            ) from None
        _sessions.add(self)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch."""
        check_input(pixels, self._shape, np.float32)
        # torch warns about arrays that it could not write to.
        inputs = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        return [output.numpy().copy() for output in self._method.execute([inputs])]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Time the program as a whole: the wheel's runtime is built without the event tracer."""
        self.run(pixels)
        start = time.perf_counter()
        for _ in range(runs):
            self.run(pixels)
        microseconds = (time.perf_counter() - start) * 1e6 / runs
        return [OpTiming(MODEL, "program", "all operations", microseconds)]


backend = ExecuTorchBackend()
