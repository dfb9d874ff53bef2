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
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import executorch  # noqa: F401  (its parts, which take seconds, are imported where they are used)
import numpy as np
import torch

from ..errors import SepViTError
from ..graph import macs_by_operation, part_of
from ..package import Manifest, OutsideOp, PlacedOps, Placement
from . import Lowering, OpTiming

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

MODEL = "model.pte"
# Calls of the lowered program that run no kernel of their own.
_NO_WORK = frozenset({"alloc", "executorch_call_delegate", "getitem", "view"})
# What to do about an operation that XNNPACK lacks, where the recipe can do something.
_REASONS = {
    "native_layer_norm": 'XNNPACK has no layer_norm; set layer_norm = "linear" in [edge]',
    "expand_copy": "XNNPACK has no expand, which a matrix product of rank 4 needs; use bmm",
}
_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16"}


class ExecuTorchBackend:
    """The backend; see `sepvit_edge.backends.Backend`."""

    target = "executorch"

    def lower(self, job: Lowering, folder: Path) -> Placement:
        """Lower to XNNPACK, and what it refuses to ExecuTorch's portable kernels.

        `to_edge_transform_and_lower` is the documented route: it decomposes again, three times, to
        learn what the partitioner wants kept whole. The traced program needs none of that; without
        it and with `_few_passes` the same bytes (tests) take a third of the time.
        """
        for key in job.recipe.options:
            raise SepViTError(f"the recipe's options: {key} is not a known key")
        if job.recipe.precision == "int8":
            raise SepViTError("executorch has no int8 yet; it has fp32, fp16")
        weights = _half_weights if job.recipe.precision == "fp16" else nullcontext
        with _quiet(), _few_passes(), weights(), _refusals() as refusals:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import EdgeCompileConfig, to_edge

            linear = torch.ops.aten.linear.default
            edge = to_edge(job.program, compile_config=EdgeCompileConfig(preserve_ops=[linear]))
            program = edge.to_backend(XnnpackPartitioner()).to_executorch()
            with (folder / MODEL).open("wb") as file:
                program.write_to_file(file)
        return _placement(program.exported_program(), job, refusals)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> ExecuTorchSession:
        """Load for the CPU."""
        return ExecuTorchSession(folder, manifest.input.shape, threads)

    def runs_here(self) -> bool:
        """Return True: XNNPACK is part of every wheel."""
        return True


@contextmanager
def _quiet() -> Iterator[None]:
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
    """Leave out XNNPACK's passes for what a traced edge model has not: each walks the graph."""
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


@contextmanager
def _refusals() -> Iterator[list[tuple[Node, str]]]:
    """Collect which nodes XNNPACK's partitioner refuses, and the reasons that it logs."""
    refused: list[tuple[Node, str]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            why: Any = record.msg  # executorch.exir.backend.utils.WhyNoPartition, used again
            if getattr(why, "node", None) is not None:
                refused.append((why.node, why.reason))

    logger, collector = logging.getLogger("executorch.backends.xnnpack.partition"), Collector()
    state = logger.level, logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    try:
        yield refused
    finally:
        logger.removeHandler(collector)
        logger.setLevel(state[0])
        logger.propagate = state[1]


@contextmanager
def _half_weights() -> Iterator[None]:
    """Store the weights of linears as float16; XNNPACK widens them when it loads them.

    XNNPACK has kernels for float16 weights between float32 activations, ExecuTorch's partitioner
    has no name for them (it wants one dtype for all operands), so the delegate is written with
    another dtype than the graph has. The other way, all in float16, leaves every GELU outside the
    delegate and is slower on x86. README, "Precisions", has the figures.
    """
    from executorch.backends.xnnpack.operators import node_visitor

    visitor = node_visitor.NodeVisitor
    get_tensor, get_datatype = node_visitor.get_param_tensor, visitor.get_serialized_dtype

    def is_weight(node: Node) -> bool:
        # The means' constant 1 / C (one output) stays exact: its error would not average out.
        return any(
            _kind(user) == "linear" and user.args[1] is node and node.meta["val"].shape[0] > 1
            for user in node.users
            if user.op == "call_function"
        )

    def tensor(program: ExportedProgram, node: Node) -> torch.Tensor | None:
        value = get_tensor(program, node)
        return value.half() if is_weight(node) else value

    def datatype(self: Any, quantization: Any, node: Node, *args: Any, **kwargs: Any) -> Any:
        if is_weight(node):
            return node_visitor.XNNDatatype.xnn_datatype_fp16
        return get_datatype(self, quantization, node, *args, **kwargs)

    with (
        patch.object(node_visitor, "get_param_tensor", tensor),
        patch.object(visitor, "get_serialized_dtype", datatype),
    ):
        yield


def _placement(
    program: ExportedProgram, job: Lowering, refusals: list[tuple[Node, str]]
) -> Placement:
    """Read the lowered program back; its nodes remember which node of the job they came from."""
    names = {node.name for node in job.program.graph.nodes if node.op == "call_function"}
    reasons = {_origin(node, names): reason for node, reason in refusals}
    delegates: list[Any] = [
        getattr(program.graph_module, node.target)
        for node in program.graph.nodes
        if node.op == "get_attr"
    ]
    inside = [n for d in delegates for n in _operations(d.original_module)]
    outside = _operations(program)
    count = len(delegates)
    where = "XNNPACK delegate" if count == 1 else f"{count} XNNPACK delegates"
    macs = macs_by_operation(job.program)
    total = sum(macs.values())
    placed = []
    for place, nodes in ((where, inside), ("portable kernels", outside)):
        for precision in sorted({_precision(node) for node in nodes}):
            group = [node for node in nodes if _precision(node) == precision]
            share = sum(macs.pop(_origin(node, names) or "", 0) for node in group)
            placed.append(
                PlacedOps(
                    where=place,
                    precision=precision,
                    accelerated=nodes is inside,
                    ops=len(group),
                    macs_share=round(share / total, 4),
                    kinds=dict(sorted(Counter(_kind(node) for node in group).items())),
                )
            )
    return Placement(
        device="CPU",
        placed=placed,
        outside=tuple(_outside(node, _origin(node, names), reasons) for node in outside),
        macs_unattributed=round(sum(macs.values()) / total, 4),
    )


def _operations(program: ExportedProgram) -> list[Node]:
    nodes = (node for node in program.graph.nodes if node.op == "call_function")
    return [node for node in nodes if _kind(node) not in _NO_WORK]


def _kind(node: Node) -> str:
    """``aten.linear.default`` and ``linear.out`` are linears."""
    name: str = getattr(node.target, "__name__", str(node.target))
    return name.split(".")[-2] if "." in name else name


def _precision(node: Node) -> str:
    value = node.meta["val"]
    dtype = (value[0] if isinstance(value, (tuple, list)) else value).dtype
    return _PRECISIONS.get(dtype, str(dtype).removeprefix("torch."))


def _origin(node: Node, names: set[str]) -> str | None:
    """Name of the job's node that a lowered node came from, from torch's record of passes."""
    sources = list(node.meta.get("from_node", ()))
    while sources:
        source = sources.pop()
        if source.name in names:
            return str(source.name)
        sources += source.from_node
    return None


def _outside(node: Node, origin: str | None, reasons: dict[str | None, str]) -> OutsideOp:
    kind = _kind(node)
    reason = _REASONS.get(kind, f"XNNPACK has no {kind.strip('_')}")
    if origin in reasons:
        reason = f"XNNPACK's partitioner says: {reasons[origin]}"
        if reasons[origin] == "invalid dtype":
            reason = 'XNNPACK computes no integers; set input = "float32-nchw" in [edge]'
    name = origin or node.name
    return OutsideOp(name=name, kind=kind, part=part_of(name), reason=reason)


@contextmanager
def _native_log() -> Iterator[list[str]]:
    """Catch what the C++ runtime writes to standard error, past Python."""
    lines: list[str] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


# ExecuTorch has one thread pool a process, and a loaded model keeps a pointer to it: another size
# means another pool, and a model that is still loaded hangs or crashes on its next run.
_sessions: weakref.WeakSet[ExecuTorchSession] = weakref.WeakSet()


@cache
def _own_choice() -> int:
    from executorch.extension.pybindings import portable_lib

    return int(portable_lib._threadpool_get_thread_count())


def _set_threads(threads: int | None) -> None:
    from executorch.extension.pybindings import portable_lib

    wanted, current = threads or _own_choice(), portable_lib._threadpool_get_thread_count()
    if wanted == current or (threads is None and _sessions):
        return
    if _sessions:
        raise SepViTError(
            f"ExecuTorch runs with {current} threads while a package is open in this process; "
            f"close it, or open this one with {wanted} threads in another process"
        )
    portable_lib._unsafe_reset_threadpool(wanted)


class ExecuTorchSession:
    """A loaded program; see `sepvit_edge.backends.Session`."""

    def __init__(self, folder: Path, shape: list[int], threads: int | None) -> None:
        with _quiet():
            from executorch.runtime import Runtime as Library
        self._shape = tuple(shape)
        log: list[str] = []
        try:
            with _native_log() as log:
                _set_threads(threads)
                self._program = Library.get().load_program(folder / MODEL)
                self._method = self._program.load_method("forward")
        except (RuntimeError, KeyError) as error:
            said = [line.partition("] ")[2] for line in log if not line.startswith("[cpuinfo_")]
            reason = said[0] if said else error
            raise SepViTError(f"ExecuTorch cannot load {folder / MODEL}: {reason}") from None
        _sessions.add(self)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch."""
        if pixels.shape != self._shape or pixels.dtype != np.float32:
            raise SepViTError(
                f"the package takes float32 {self._shape}, not {pixels.dtype} {pixels.shape}"
            )
        # torch warns about arrays that it could not write to.
        inputs = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        return [output.numpy().copy() for output in self._method.execute([inputs])]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Time the program as a whole.

        The event tracer that would time its operations is not built into the wheel's runtime.
        """
        self.run(pixels)
        start = time.perf_counter()
        for _ in range(runs):
            self.run(pixels)
        microseconds = (time.perf_counter() - start) * 1e6 / runs
        return [OpTiming(MODEL, "program", "all operations", microseconds)]


backend = ExecuTorchBackend()
