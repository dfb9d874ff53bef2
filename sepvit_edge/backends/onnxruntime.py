"""ONNX Runtime: model.onnx, for its CPU execution provider."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors
from onnxscript import rewriter

from ..config.toml import Strict
from ..errors import SepViTError
from ..model.graph import part_of
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session
from .support.onnx_file import export_onnx, keep_weights_normal, write_onnx
from .support.onnx_half import compute_half
from .support.placement import PlacementBuilder

MODEL = "model.onnx"
# The runtime's exceptions have no base class.
_REFUSALS = (
    RuntimeError,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoSuchFile,
    errors.NotImplemented,
    errors.RuntimeException,
)
# Suffixes of nodes that the runtime rewrites: for its own layout, for a quantisation that it moves
# across a transpose, for one of several readers of a tensor.
_REWRITTEN = re.compile(r"(_nchwc|_pre_q|_token_\d+)+$")
_FUSED = "fused "  # in front of the name of a layer that its ReLU was put into
# A convolution in float16 that the runtime casts to float32, in its own layout.
_CAST = re.compile(r"^InsertedPrecisionFreeCast_(?=.*_nchwc$)")
# Elements of the smallest weight stored as float16; smaller ones, as the input's mean, are not.
_SMALLEST_HALF = 1024


class Options(Strict):
    """Options of an ONNX Runtime recipe.

    Attributes
    ----------
    opset : int
        23 has the operator ``Attention``: one kernel that finds the heads by stride, faster than
        permutations, products and softmax; ONNX Runtime runs it from 1.23 (pull request 25156).
        20, the first with ``Gelu``, for ONNX Runtime from 1.17 and for execution providers that
        do not support ``Attention``.
    arithmetic : str
        Of an fp16 package: ``"float32"``, with weights stored as float16; or ``"float16"`` in
        products, convolutions and GELU, for arm64 cores that have it. Other CPUs convert back and
        forth, and are slower.
    """

    arithmetic: Literal["float32", "float16"] = "float32"
    opset: Literal[20, 23] = 23


class ONNXRuntimeBackend:
    """The target's backend; see `interface.Backend`."""

    target = "onnxruntime"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Export, put the names and the fused attention in, and check."""
        options = job.recipe.options_as(Options)
        model = export_onnx(job, options.opset)
        if job.recipe.precision == "int8":
            _shift_activations(model)
            rewriter.rewrite(model, [rewriter.RewriteRule(_rounded_relu, _clipped)])
        if options.opset >= 23:
            rewriter.rewrite(model, [rewriter.RewriteRule(_products, _attention)])
        if options.arithmetic == "float16":
            keep_weights_normal(model)
            compute_half(model)
        elif job.recipe.precision == "fp16":
            _store_half(model)
        write_onnx(model, job, folder / MODEL)
        return _placement(folder, job)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> ONNXRuntimeSession:
        """Load the model for the CPU."""
        return ONNXRuntimeSession(folder, threads)

    def verification(self) -> Verification:
        """Return "run": the CPU execution provider is part of every wheel."""
        return "run"


def _shift_activations(model: ir.Model) -> None:
    """Rewrite int8 activations as uint8, 128 higher; exact.

    The kernels of x86 multiply uint8 by int8: signed activations run at 0.83 of the speed, and the
    runtime's own change of quantised transposes fails on them (1.31: "output_dtype INT8").
    """
    zero = ir.Value(
        name="zero_point", const_value=ir.tensor(np.array(128, np.uint8), name="zero_point")
    )
    zero.type, zero.shape = ir.TensorType(ir.DataType.UINT8), ir.Shape([])
    model.graph.register_initializer(zero)
    stored = set(model.graph.initializers.values())
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
        elif node.op_type != "DequantizeLinear" or node.inputs[0] in stored:
            continue
        node.replace_input_with(2, zero)


def _rounded_relu(op, x, scale, zero):  # type: ignore[no-untyped-def]
    """Match the end of an int8 layer with its ReLU."""
    return op.QuantizeLinear(op.Relu(x), scale, zero)


def _clipped(op, x, scale, zero, **_):  # type: ignore[no-untyped-def]
    """Write the ReLU as a lower limit of the integers; exact.

    With a ReLU in front of the rounding, the runtime puts it into the layer and computes both in
    float.
    """
    rounded = op.QuantizeLinear(x, scale, zero, _outputs=[f"{x.name}__rounded"])
    return op.Clip(rounded, zero)


def _permuted(op: Any, x: Any, perm: list[int], split: Any, joined: Any) -> Any:
    return op.Reshape(op.Transpose(op.Reshape(x, split), perm=perm), joined)


def _products(  # type: ignore[no-untyped-def]
    op, q, k, v, q_split, q_joined, k_split, k_joined, v_split, v_joined, y_split, rows
):
    """Match DSA's attention as the edge form has it: (windows * tokens, C) rows in and out.

    Every operand is split into heads, permuted and joined by two reshapes, whose shapes are the
    other arguments. PSA's attention differs, by the identity that it adds.
    """
    queries = _permuted(op, q, [0, 2, 1, 3], q_split, q_joined)  # (windows * heads, tokens, d)
    keys = _permuted(op, k, [0, 2, 3, 1], k_split, k_joined)  # (windows * heads, d, tokens)
    values = _permuted(op, v, [0, 2, 1, 3], v_split, v_joined)
    y = op.MatMul(op.Softmax(op.MatMul(queries, keys), axis=-1), values)
    return _permuted(op, y, [0, 2, 1, 3], y_split, rows)


def _attention(op, q, k, v, q_split, rows, **_):  # type: ignore[no-untyped-def]
    """Write the same with one operator; its scale is 1, since q carries 1 / sqrt(d) already."""
    windows, tokens, heads, width = q_split.const_value.numpy().tolist()
    part = q.name.removesuffix("_q__linear")
    shape = op.Constant(value_ints=[windows, tokens, heads * width], _outputs=[f"{part}__shape"])
    inputs = [op.Reshape(x, shape, _outputs=[f"{x.name}/Reshape"]) for x in (q, k, v)]
    heads = {"q_num_heads": heads, "kv_num_heads": heads}
    y = op.Attention(*inputs, **heads, scale=1.0, _outputs=[f"{part}__attention"])
    return op.Reshape(y, rows)


def _store_half(model: ir.Model) -> None:
    """Store weights as float16, each with a cast that the runtime folds when it loads the model.

    Its kernels then see float32 weights: with float16 activations most of them would cast back and
    forth on a CPU.
    """
    first = model.graph[0]
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        weight = value.const_value.numpy()
        if weight.dtype != np.float32 or weight.ndim < 2 or weight.size < _SMALLEST_HALF:
            continue
        if np.abs(weight).max() > np.finfo(np.float16).max:
            continue
        uses = list(value.uses())
        cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
        cast.outputs[0].name = re.sub(r"\W", "_", f"{value.name}__cast")
        cast.outputs[0].type, cast.outputs[0].shape = value.type, value.shape
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])
        model.graph.insert_before(first, cast)
        value.const_value = ir.tensor(weight.astype(np.float16), name=value.name)
        value.type = ir.TensorType(ir.DataType.FLOAT16)


def _load(folder: Path, threads: int | None, profile: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # errors are raised as well
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    try:
        return ort.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        reason = str(error).strip().splitlines()[-1].rpartition("failed:")[2]
        raise SepViTError(
            f"ONNX Runtime cannot load {folder / MODEL}, export again: {reason}"
        ) from None


def _profile(folder: Path, threads: int | None, pixels: np.ndarray, runs: int) -> list[OpTiming]:
    """Run the model under the runtime's profiler; operations in the order of execution."""
    with tempfile.TemporaryDirectory() as scratch:
        session = _load(folder, threads, Path(scratch) / "profile")
        feed = {session.get_inputs()[0].name: pixels}
        for _ in range(runs + 1):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    calls: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time").removeprefix(_FUSED)
            calls.setdefault(_CAST.sub("", name), []).append(event)
    names = list(calls)
    timings = []
    for i, (name, events) in enumerate(calls.items()):
        facts = events[0]["args"]
        kind = facts["op_name"]
        if part_of(name) is None:
            # The runtime's own change of layout before or after a convolution: named after that.
            name = f"{names[i + 1 if kind == 'ReorderInput' else i - 1]}/{kind}"
        precision = next(iter(facts["output_type_shape"][0]))
        times = [event["dur"] for event in events[1:]]  # the first run warms up
        kernel = f"{facts['provider']} {precision}"
        timings.append(OpTiming(name, kind, kernel, sum(times) / len(times)))
    return timings


def _placement(folder: Path, job: LoweringJob) -> Placement:
    """Run the model once, and count its operations by provider and precision."""
    operations = _profile(folder, None, np.zeros(job.input.shape, job.input.dtype), 1)
    builder = PlacementBuilder(job.program)
    providers = sorted({operation.kernel.split()[0] for operation in operations})
    places = {name: builder.place(name, accelerated=True) for name in providers}
    for operation in operations:
        provider, precision = operation.kernel.split()
        source = _REWRITTEN.sub("", operation.name.split("/")[0])
        places[provider].add(precision, operation.kind, [source])
    for operation in operations:
        # The two products of an attention, and a layer that is named after the model's output, have
        # no name of the graph's left.
        if operation.kind == "Attention" or _REWRITTEN.sub("", operation.name) in job.outputs:
            provider, precision = operation.kernel.split()
            places[provider].add_rest_of_parts(precision, [part_of(operation.name)])
    return builder.placement("CPU")


class ONNXRuntimeSession(Session):
    """A loaded model; see `interface.Session`."""

    def __init__(self, folder: Path, threads: int | None) -> None:
        self._folder, self._threads = folder, threads
        self._session = _load(folder, threads)
        self._input = self._session.get_inputs()[0].name

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch."""
        outputs: list[np.ndarray] = self._session.run(None, {self._input: pixels})
        return outputs

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Time every node, in a separate session, since the profiler costs time in each run."""
        return _profile(self._folder, self._threads, pixels, runs)


backend = ONNXRuntimeBackend()
