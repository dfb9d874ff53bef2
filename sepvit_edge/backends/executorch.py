"""ExecuTorch with its XNNPACK delegate: model.pte."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import executorch  # noqa: F401  (its parts, which take seconds, are imported where they are used)
import numpy as np
import torch

from ..config.recipe import Strict
from ..errors import SepViTError
from ..model.graph import WHOLE
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session, check_input
from .support.edge_patches import few_edge_passes, shared_history
from .support.executorch_graph import kind_of, operations
from .support.placement import PlacementBuilder
from .support.xnnpack_patches import few_passes, few_transposes, half_weights, partitioner

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

MODEL = "model.pte"
# First words of lines that the runtime always logs when it starts.
_CHATTER = ("[cpuinfo_utils.cpp", "[threadpool.cpp")
_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.int8: "int8"}
# Reasons that XNNPACK's partitioner does not give, or gives in other words.
_REASONS = {
    "native_layer_norm": 'XNNPACK does not support layer_norm; set form = "xnnpack" in [edge]',
    "expand_copy": "XNNPACK does not support expand, as in a matrix product of rank 4; use bmm",
    "invalid dtype": 'XNNPACK does not compute on integers; set form = "xnnpack" in [edge]',
}


class Options(Strict):
    """Options of an XNNPACK recipe: none."""


class ExecuTorchBackend:
    """The target's backend; see `interface.Backend`."""

    target = "executorch"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Lower to XNNPACK, and operations that it rejects to ExecuTorch's portable kernels.

        `to_edge_transform_and_lower` is the documented route: it decomposes three more times, to
        learn which operations the partitioner wants whole. The traced program does not need that;
        without it, with `few_passes` and with the patches of `write_program` the same bytes (tests)
        take less than a third of the time, as long as the transposes that `few_transposes` leaves
        out are in both.
        """
        job.recipe.options_as(Options)
        weights = half_weights if job.recipe.precision == "fp16" else nullcontext
        with quiet(), few_passes(), few_transposes(), weights(), _refusals() as refusals:
            program = write_program(job, partitioner(), folder)
        return delegation(program, job, "XNNPACK", "CPU", refusals)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> ExecuTorchSession:
        """Load for the CPU."""
        return ExecuTorchSession(folder, manifest.input.shape, threads)

    def verification(self) -> Verification:
        """XNNPACK is part of every wheel."""
        return "run"


def write_program(job: LoweringJob, partitioner: Any, folder: Path) -> ExportedProgram:
    """Lower a job to a partitioner's delegate, the rest to portable kernels, and write it.

    Returns
    -------
    torch.export.ExportedProgram
        The lowered program, for `delegation`.
    """
    from executorch.exir import EdgeCompileConfig, to_edge

    config = EdgeCompileConfig(preserve_ops=[*WHOLE], _check_ir_validity=False)
    with shared_history():
        with few_edge_passes():
            edge = to_edge(job.program, compile_config=config)
        program = edge.to_backend(partitioner).to_executorch()
    with (folder / MODEL).open("wb") as file:
        program.write_to_file(file)
    return program.exported_program()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the toolchain's notices about its own code off the terminal."""
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


@contextmanager
def _refusals() -> Iterator[list[tuple[Node, str]]]:
    """Collect the nodes that XNNPACK's partitioner rejects, with the reasons that it logs."""
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
        Result of `write_program`.
    job : LoweringJob
        Job that was lowered.
    delegate, device : str
        Usual name of the delegate, and the unit that it runs on.
    refusals : sequence of (Node, str)
        Nodes that the partitioner rejected, with its reasons.
    half : bool
        Whether the delegate computes in float16 where the graph has float32.
    """
    names = {node.name for node in job.program.graph.nodes if node.op == "call_function"}
    reasons = {_origin(node, names): reason for node, reason in refusals}
    delegates = [
        getattr(program.graph_module, n.target) for n in program.graph.nodes if n.op == "get_attr"
    ]
    inside = [node for delegate in delegates for node in operations(delegate.original_module)]
    outside = operations(program)
    one = len(delegates) == 1
    builder = PlacementBuilder(job.program)
    unit = builder.place(
        f"{delegate} delegate" if one else f"{len(delegates)} {delegate} delegates",
        accelerated=True,
    )
    for node in inside:
        stated = "int8" if _is_int8(node) else _precision(node)
        precision = "fp16" if half and stated == "fp32" else stated
        unit.add(precision, kind_of(node), [_origin(node, names)])
    portable = builder.place("portable kernels", accelerated=False)
    for node in outside:
        name, kind = _origin(node, names), kind_of(node)
        portable.add(_precision(node), kind, [name])
        builder.outside(name, kind, _reason(kind, reasons.get(name), delegate))
    return builder.placement(device)


def _is_int8(node: Node) -> bool:
    """Return whether a delegate computes a layer, or the ReLU behind it, on integers."""
    inputs = node.all_input_nodes
    if kind_of(node) == "relu":
        return _is_int8(inputs[0])
    return len(inputs) > 1 and [kind_of(source) for source in inputs[:2]] == [
        "dequantize_per_tensor",
        "dequantize_per_channel",
    ]


def _precision(node: Node) -> str:
    value = node.meta["val"]
    dtype = (value[0] if isinstance(value, (tuple, list)) else value).dtype
    return _PRECISIONS.get(dtype, str(dtype).removeprefix("torch."))


def _origin(node: Node, names: set[str]) -> str:
    """Return the job's node that a lowered node came from, by torch's record; else its own name."""
    sources = list(node.meta.get("from_node", ()))
    while sources:
        source = sources.pop()
        if source.name in names:
            return str(source.name)
        sources += source.from_node
    return node.name


def _reason(kind: str, said: str | None, delegate: str) -> str:
    """Return why a delegate left an operation out; `said` is its partitioner's own reason."""
    reason = f"{delegate} does not support {kind.strip('_')}"
    if said:
        reason = f"{delegate}'s partitioner says: {said}"
    if delegate == "XNNPACK":
        reason = _REASONS.get(said or kind, reason)
    return reason


@contextmanager
def _native_log() -> Iterator[list[str]]:
    """Catch the C++ runtime's output to standard error, some of which passes Python's stream."""
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


# ExecuTorch has one thread pool per process, and a loaded model keeps a pointer to it. Another size
# makes a new pool, and a model that was loaded before hangs or crashes on its next run.
_sessions: weakref.WeakSet[ExecuTorchSession] = weakref.WeakSet()


@cache
def _default_threads() -> int:
    from executorch.extension.pybindings import portable_lib

    return int(portable_lib._threadpool_get_thread_count())


def _set_threads(threads: int | None) -> None:
    from executorch.extension.pybindings import portable_lib

    default, current = _default_threads(), portable_lib._threadpool_get_thread_count()
    wanted = threads or default
    if wanted == current or (threads is None and _sessions):
        return
    if _sessions:
        raise SepViTError(
            f"ExecuTorch has {current} threads while a package of it is open in this process; "
            f"close that one, or open this one with {wanted} in another process"
        )
    portable_lib._unsafe_reset_threadpool(wanted)


class ExecuTorchSession(Session):
    """A loaded program; see `interface.Session`."""

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
