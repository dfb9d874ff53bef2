"""LiteRT (once TensorFlow Lite): model.tflite, for its XNNPACK delegate on CPUs.

The converter, litert-torch, wants another torch than this project, so it has a virtual environment
(`toolkit.py`), where `litert_worker.py` drives it. The runtime, ai-edge-litert, is here.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from torch.export import ExportedProgram

from ..errors import SepViTError
from ..model.graph import part_of
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session, check_input
from .registry import toolkit_of
from .support.cache import cached
from .support.litert_file import compute_gelus_in_float
from .support.placement import PlacementBuilder
from .support.quantized_weights import unfold_weights
from .support.toolkit_process import ToolkitProcess

TARGET = "litert"
MODEL = "model.tflite"
_PROGRAM = "program.pt2"
_WORKER = Path(__file__).parent / "support" / "litert_worker.py"
_DELEGATE = "DELEGATE"  # the interpreter's name for a group of operations that a delegate took
# A tensor's name has the path of its module, as ".../rows.Block_0/rows.DSA_dsa/LayerNorm_norm;7".
_MODULE = re.compile(r"[\w.]+\.(?P<kind>[A-Za-z0-9]+)_(?P<name>\w+)")
# The traced graph's names of what layers compute.
_LAYERS = {
    "FULLY_CONNECTED": "linear",
    "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "convolution",
}
_PRECISIONS = {np.float32: "f32", np.int8: "i8"}
_LISTS = {"Stage": "stages_", "Block": "blocks_"}


class LiteRTBackend:
    """The target's backend; see `interface.Backend`."""

    target = TARGET

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Convert the program, and read off what the XNNPACK delegate takes.

        Raises
        ------
        SepViTError
            If the converter is missing, or rejects the model.
        """
        toolkit = toolkit_of(TARGET)
        toolkit.check()
        facts = {"precision": job.recipe.precision}

        def make(made: Path) -> None:
            with ToolkitProcess(toolkit, _WORKER, facts, {_PROGRAM: program}) as worker:
                worker.answer()
                shutil.copyfile(worker.folder / MODEL, made / MODEL)

        is_int8 = job.recipe.precision == "int8"
        exported = _unfolded(job.program) if is_int8 else job.program
        with tempfile.TemporaryDirectory() as scratch:
            program = Path(scratch) / _PROGRAM
            torch.export.save(exported, program)
            weights = {name: value.detach().numpy() for name, value in exported.state_dict.items()}
            key = {"tool": toolkit.requirements, "worker": _WORKER, "job": facts}
            graph = exported.graph_module.print_readable(print_output=False)
            cached(folder, make, {**key, "graph": graph, "weights": weights})
        if is_int8:
            compute_gelus_in_float(folder / MODEL)
        return _placement(folder / MODEL, job)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> LiteRTSession:
        """Load the model for the CPU."""
        return LiteRTSession(folder, manifest, threads)

    def verification(self) -> Verification:
        """Return "run": the interpreter and its delegate are part of every wheel."""
        return "run"


def _unfolded(program: ExportedProgram) -> ExportedProgram:
    """Return the program with its weights quantised in the graph, as the converter wants them."""
    module = program.module(check_guards=False)
    unfold_weights(module)
    (name,) = program.graph_signature.user_inputs
    (pixels,) = (node.meta["val"] for node in program.graph.nodes if node.name == name)
    return torch.export.export(module, (torch.zeros(pixels.shape, dtype=pixels.dtype),))


def _interpreter(file: Path, threads: int | None) -> Interpreter:
    try:
        interpreter = Interpreter(str(file), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise SepViTError(f"LiteRT cannot load {file.name}: {error}") from None
    return interpreter


@dataclass(frozen=True)
class Operation:
    """One operation of a model file.

    Attributes
    ----------
    kind : str
        LiteRT's name of its type.
    name : str
        Its module's path as in the traced graph, and its kind.
    precision : str
        Type of its result, ``"f32"`` or ``"i8"``.
    delegated : bool
        Whether the XNNPACK delegate took it.
    """

    kind: str
    name: str
    precision: str
    delegated: bool

    @property
    def sources(self) -> list[str]:
        """The operation of the traced graph that it computes, if it is a layer."""
        module = self.name.rpartition("__")[0]
        return [f"{module}__{_LAYERS[self.kind]}"] if self.kind in _LAYERS else []


def read_operations(interpreter: Interpreter) -> list[Operation]:
    """Return the operations of a loaded model, in the file's order.

    The interpreter lists all operations of the file, and each group that a delegate took as one
    more. An operation is outside if what it makes is read and no group made it.
    """
    listed = interpreter._get_ops_details()
    groups = [each for each in listed if each["op_name"] == _DELEGATE]
    operations = [each for each in listed if each["op_name"] != _DELEGATE]
    makers = {int(tensor): i for i, each in enumerate(operations) for tensor in each["outputs"]}
    made_by_groups = {int(tensor) for each in groups for tensor in each["outputs"]}
    wanted = [int(tensor) for each in groups for tensor in each["inputs"]]
    wanted += [output["index"] for output in interpreter.get_output_details()]
    outside: set[int] = set()
    while wanted:
        tensor = wanted.pop()
        if tensor in made_by_groups or tensor not in makers or makers[tensor] in outside:
            continue
        outside.add(makers[tensor])
        wanted += [int(read) for read in operations[makers[tensor]]["inputs"]]
    tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
    results = [tensors[int(each["outputs"][0])] for each in operations]
    return [
        Operation(
            each["op_name"],
            f"{module_of(result['name'])}__{each['op_name'].lower()}",
            _PRECISIONS.get(result["dtype"], np.dtype(result["dtype"]).name),
            i not in outside,
        )
        for i, (each, result) in enumerate(zip(operations, results, strict=True))
    ]


def module_of(tensor: str) -> str:
    """Return the path of the module that made a tensor, as the traced graph has it.

    Examples
    --------
    >>> module_of("edge.EdgeModel/edge.Stage_0/rows.Block_1/rows.DSA_dsa/nn.Linear_q;1")
    'stages_0_blocks_1_dsa_q'

    Returns
    -------
    str
        Of tensors with several names, the first of the innermost modules.
    """
    paths = []
    for name in tensor.split(";"):
        found = [_MODULE.fullmatch(module) for module in name.split("/")[1:]]
        paths.append([_LISTS.get(m["kind"], "") + m["name"] for m in found if m])
    innermost = max(paths, key=len)
    return "_".join(innermost)


def _placement(file: Path, job: LoweringJob) -> Placement:
    operations = read_operations(_interpreter(file, 1))
    builder = PlacementBuilder(job.program)
    delegate = builder.place("XNNPACK", accelerated=True)
    kernels = builder.place("LiteRT's own kernels", accelerated=False)
    for operation in operations:
        place = delegate if operation.delegated else kernels
        place.add(operation.precision, operation.kind, operation.sources)
        if not operation.delegated:
            reason = f"the XNNPACK delegate does not take this {operation.kind}"
            builder.outside(operation.name, operation.kind, reason)
    # What is left: products of attention, and layers whose names the converter lost.
    for place, delegated in ((kernels, False), (delegate, True)):
        floats = [o for o in operations if o.delegated == delegated and o.precision == "f32"]
        if floats:
            place.add_rest_of_parts("f32", [part_of(operation.name) for operation in floats])
    return builder.placement("CPU")


def _in_float(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Dequantise the integers that the converter lets a tap have in front of an int8 layer."""
    if values.dtype != np.int8:
        return values
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


class LiteRTSession(Session):
    """A model in LiteRT's interpreter; see `interface.Session`."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None) -> None:
        self._shape = tuple(manifest.input.shape)
        interpreter = _interpreter(folder / MODEL, threads)
        (self._signature,) = interpreter.get_signature_list()
        self._interpreter = interpreter

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch."""
        check_input(pixels, self._shape, np.float32)
        runner = self._interpreter.get_signature_runner(self._signature)
        outputs: dict[str, Any] = runner(args_0=pixels)
        details: dict[str, Any] = runner.get_output_details()
        names = [f"output_{i}" for i in range(len(outputs))]
        return [_in_float(outputs[name], *details[name]["quantization"]) for name in names]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Refuse: the Python interface reports no times of operations.

        Raises
        ------
        SepViTError
            Always.
        """
        raise SepViTError(
            "LiteRT's Python interface reports no times of operations; its benchmark_model does, "
            "with --enable_op_profiling=true"
        )


backend = LiteRTBackend()
