"""OpenVINO: model.xml and model.bin."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import openvino as ov
import torch
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch.export import ExportedProgram
from torch.fx import Node

from ..config.toml import Strict
from ..errors import SepViTError
from ..model.graph import part_of
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session
from .support.placement import PlacementBuilder
from .support.quantized_weights import unfold_weights
from .support.vendor import VendorPatch

MODEL = "model.xml"
TELEMETRY = "SEPVIT_TELEMETRY"  # variable of the environment: 1 lets runtimes send theirs
PATCHES = (
    VendorPatch(
        "openvino_telemetry:Telemetry",
        "openvino 2026.4.1",
        "each conversion sends its kind and version to Intel, and writes an id to ~/intel",
        "tests/runtimes/test_openvino.py::test_a_conversion_sends_nothing",
    ),
)
_ATEN = torch.ops.aten
_LAYERS = (_ATEN.linear.default, _ATEN.convolution.default)
_MOVES = (_ATEN.view.default, _ATEN.permute.default)
_SCALED = "steps"
# Nodes of the compiled graph that compute nothing.
_NO_WORK = frozenset({"Const", "Input", "Output"})


# A constant that was folded has its own number in front of the operation's name.
_NUMBERED = re.compile(r"[A-Z][A-Za-z]*_\d+/")


class Options(Strict):
    """Options of an OpenVINO recipe.

    Attributes
    ----------
    inference_precision : str
        The plugin's INFERENCE_PRECISION_HINT, written into every compilation: ``"f32"``,
        ``"bf16"``, or ``"device"`` for the CPU plugin's own choice.
    """

    inference_precision: Literal["f32", "bf16", "device"] = "f32"


class OpenVINOBackend:
    """The target's backend; see `interface.Backend`."""

    target = "openvino"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Convert, save, and compile for the CPU to read the placement."""
        options = job.recipe.options_as(Options)
        write_ir(job, folder)
        return _placement(compile_ir(folder, "CPU", _settings(options, None)), job)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> OpenVINOSession:
        """Compile for the CPU."""
        options = manifest.runtime.options_as(Options)
        return OpenVINOSession(folder, "CPU", _settings(options, threads))

    def verification(self) -> Verification:
        """Return "run": the CPU plugin is part of every wheel."""
        return "run"


def _without_telemetry() -> AbstractContextManager[object]:
    """Return a context in which a conversion sends nothing, unless the user allows it."""
    if os.environ.get(TELEMETRY) == "1" or find_spec("openvino_telemetry") is None:
        return nullcontext()
    from openvino.tools.ovc.telemetry_stub import Telemetry

    (telemetry,) = PATCHES
    return telemetry.replaced_by(Telemetry)


def write_ir(job: LoweringJob, folder: Path) -> ov.Model:
    """Convert through the FX decoder, the only route into OpenVINO that never crashed.

    `convert_model(program)` would decompose again and lose the nodes' names, so the decoder
    gets the decomposed graph.
    """
    module = job.program.module(check_guards=False)
    _round_in_float(module)
    # OpenVINO's frontend takes quantise and dequantise together for its FakeQuantize, and fails on
    # one without the other ("i8 and f32"). It folds them into int8 weights when it saves the model.
    unfold_weights(module)
    with _without_telemetry():
        model = ov.convert_model(TorchFXPythonDecoder(module))
    # Names of tensors between operations are a tenth of the text, and nothing reads them.
    for node in model.get_ops():
        for port in node.outputs():
            port.get_tensor().set_names(set())
    model.inputs[0].get_tensor().set_names({job.input.name})
    for port, name in zip(model.outputs, job.outputs, strict=True):
        port.get_tensor().set_names({name})
    # Other names are numbered through the whole process; the same bytes need fixed names.
    model.set_friendly_name(job.model.name)
    for index, node in enumerate(model.get_ordered_ops()):
        name = node.get_friendly_name()
        if "/" not in name:
            node.set_friendly_name(f"{_named_source(node) or node.get_type_name()}.{index}")
        elif _NUMBERED.match(name):
            node.set_friendly_name(f"{_NUMBERED.sub('', name)}.{index}")
    ov.save_model(model, folder / MODEL, compress_to_fp16=job.recipe.precision == "fp16")
    return model


def _named_source(node: ov.Node) -> str | None:
    """Return the name that an operation added by the converter takes over from its inputs.

    The scales behind an int8 layer are such an operation; the plugin names the layer after them.
    """
    if node.get_type_name() in ("Constant", "Convert"):
        return None
    names = (source.get_node().get_friendly_name() for source in node.input_values())
    return next((name for name in names if "/" in name), None)


def _round_in_float(module: torch.fx.GraphModule) -> None:
    """Write the rounding of activations as float operations, exactly as torch rounds.

    A FakeQuantize computes (x - low) / (high - low) * 255, whose error of 1e-5 scales rounds some
    activations of most images the other way: SQNR to torch's int8 is 33 dB for SepViT-Lite on
    glyphs, with this pass 37. In front of a linear or convolution the FakeQuantize stays, since it
    makes the layer an int8 one; it does not change values that are rounded already.

    Behind them it would also make attention's first product an int8 one, which the scheme does not
    allow and a CPU without VNNI computes wrongly: its 16-bit sums of two products can hold an
    activation and a weight of the scheme, not two activations.
    """
    ops = torch.ops.quantized_decomposed
    graph: Any = module.graph
    for quantize in list(graph.nodes):
        if quantize.target is not ops.quantize_per_tensor.default:
            continue
        x = quantize.args[0]
        with graph.inserting_before(quantize):
            rounded = _rounded(quantize)
        if _layer_of(x) is not None:
            (dequantize,) = quantize.users
            dequantize.replace_all_uses_with(rounded)
        else:
            quantize.replace_input_with(x, rounded)
    graph.eliminate_dead_code()
    module.recompile()


def _layer_of(x: Node) -> Node | None:
    """Return the linear or convolution that a node is, or whose ReLU it is."""
    source: Any = x.args[0] if x.target is _ATEN.relu.default else x
    return source if source.target in _LAYERS else None


def _rounded(quantize: Node) -> Node:
    """Quantise and dequantise in float, as torch rounds; the names tell the part."""
    x, scale, _, low, high, _ = cast(Any, quantize.args)
    layer = _layer_of(x)
    prefix = quantize.name if layer is None else layer.name
    for name, target, *arguments in (
        (_SCALED, _ATEN.mul.Tensor, 1 / scale),
        ("round", _ATEN.round.default),
        ("clamp", _ATEN.clamp.default, low, high),
        ("scale", _ATEN.mul.Tensor, scale),
    ):
        made = quantize.graph.create_node(
            "call_function", target, (x, *arguments), name=f"{prefix}_{name}"
        )
        made.meta["val"] = x.meta["val"]
        x = made
    return cast(Node, x)


def _placement(compiled: ov.CompiledModel, job: LoweringJob) -> Placement:
    """Read the compiled graph back: every node runs in the CPU plugin, in its own precision."""
    nodes, rounded = [], _layers_rounded_by(job.program)
    for node in compiled.get_runtime_model().get_ops():
        info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        if info["layerType"] not in _NO_WORK:
            origins = _origins(info, rounded)
            nodes.append((info["runtimePrecision"], info["layerType"], origins))
    builder = PlacementBuilder(job.program)
    plugin = builder.place("CPU plugin", accelerated=True)
    for precision, kind, origins in nodes:
        plugin.add(precision, kind, origins)
    # Attention that the plugin fused lost the names of its products, not of its part.
    for precision, _, origins in nodes:
        if any(name.startswith("MatMul_") for name in origins):
            plugin.add_rest_of_parts(precision, map(part_of, origins))
    return builder.placement("CPU")


def _layers_rounded_by(program: ExportedProgram) -> dict[str, str]:
    """Return the layer whose result each quantisation rounds, directly or after a permutation."""
    layers = {}
    for node in program.graph.nodes:
        if node.target is torch.ops.quantized_decomposed.quantize_per_tensor.default:
            source = node.args[0]
            while source.target in _MOVES:
                source = source.args[0]
            if (layer := _layer_of(source)) is not None:
                layers[node.name] = layer.name
    return layers


def _origins(info: dict[str, str], rounded: dict[str, str]) -> list[str]:
    """Return the names of the graph's nodes that a compiled node came from.

    The plugin multiplies the scales behind a layer into it, and keeps one of their names: that of
    an int8 layer's own scale, or of the quantisation that rounds the layer's result.
    """
    names = []
    for name in (name.split("/")[0] for name in info["originalLayersNames"].split(",")):
        scaled = name.removesuffix(f"_{_SCALED}")
        names.append(rounded.get(scaled, scaled) if scaled != name else name)
    return names


def _settings(options: Options, threads: int | None) -> dict[str, object]:
    settings: dict[str, object] = {}
    if options.inference_precision != "device":
        settings["INFERENCE_PRECISION_HINT"] = options.inference_precision
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def compile_ir(folder: Path, device: str, settings: dict[str, object]) -> ov.CompiledModel:
    """Compile a package's model for a device of OpenVINO's.

    Raises
    ------
    SepViTError
        If OpenVINO refuses it, with its reason.
    """
    settings = {"PERFORMANCE_HINT": "LATENCY", **settings}
    try:
        return ov.Core().compile_model(folder / MODEL, device, settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SepViTError(f"OpenVINO cannot load {folder / MODEL}: {reason}") from None


class OpenVINOSession(Session):
    """A compiled model; see `interface.Session`."""

    def __init__(self, folder: Path, device: str, settings: dict[str, object]) -> None:
        self._arguments = folder, device, settings
        self._compiled = compile_ir(*self._arguments)
        self._request = self._compiled.create_infer_request()

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch."""
        results = self._request.infer([pixels], share_inputs=True)
        return [np.array(results[port]) for port in self._compiled.outputs]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Time every node, in a separate compilation, since counters cost time in each run."""
        folder, device, settings = self._arguments
        counted = compile_ir(folder, device, {**settings, "PERF_COUNT": True})
        request = counted.create_infer_request()
        request.infer([pixels])
        totals: dict[tuple[str, str, str], float] = {}
        for _ in range(runs):
            request.infer([pixels])
            for node in request.profiling_info:
                if node.status == ov.ProfilingInfo.Status.EXECUTED:
                    key = (node.node_name, node.node_type, node.exec_type)
                    microseconds = node.real_time.total_seconds() * 1e6
                    totals[key] = totals.get(key, 0.0) + microseconds / runs
        return [OpTiming(*key, microseconds) for key, microseconds in totals.items()]


backend = OpenVINOBackend()
