"""Qualcomm's HTP (the NPU of Snapdragon) by ONNX Runtime's QNN execution provider.

A package holds model.onnx, which the provider compiles on the device when it is loaded, and for
each SoC of the recipe the program that it would compile there: an ONNX file around a QNN context
binary. On x86-64 Linux the provider's wheel has the compiler and an emulation of the HTP, which
computes the device's results and says nothing about its speed. A package contains no part of the
wheel.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import field_validator

from ..config.toml import Strict
from ..errors import CheckFailed, SepViTError
from ..files import file_sha256
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session
from .onnxruntime import MODEL, ONNXRuntimeSession
from .support.cache import cached, cached_arrays, verified_package
from .support.onnx_file import export_onnx, keep_weights_normal, write_onnx
from .support.placement import PlacementBuilder
from .support.qualcomm_worker import TRACE, Worker, WorkerError
from .versions import versions_used

if importlib.util.find_spec("onnxruntime_qnn") is None:  # used by the worker only
    raise ModuleNotFoundError("No module named 'onnxruntime_qnn'", name="onnxruntime-qnn")

# Distributions whose versions the compiled programs and their results depend on.
_TOOLS = ("onnxruntime", "onnxruntime-qnn")
# Share of a program's bytes that may be padding: other weights change nearly all of them.
_PADDING = 2e-3
# Suffixes of nodes that ONNX Runtime copied.
_COPY = re.compile(r"(/duplicated)?(_token_\d+)?$")


@dataclass(frozen=True)
class SoC:
    """A system on a chip, as QNN numbers it.

    Attributes
    ----------
    name : str
        Its usual name.
    model : int
        QNN's ``soc_model``. Without it ONNX Runtime silently falls back to the CPU.
    arch : int
        Version of the Hexagon processor (``htp_arch``).
    vtcm_mb : int
        Its tightly coupled memory.
    """

    name: str
    model: int
    arch: int
    vtcm_mb: int


# "Supported Snapdragon devices" in the overview of Qualcomm AI Engine Direct. Architectures before
# v69 have no float16, which is between the int8 layers of every package.
SOCS = {
    "SM8450": SoC("Snapdragon 8 Gen 1", 36, 69, 8),
    "SM8475": SoC("Snapdragon 8+ Gen 1", 42, 69, 8),
    "SM8550": SoC("Snapdragon 8 Gen 2", 43, 73, 8),
    "SM8650": SoC("Snapdragon 8 Gen 3", 57, 75, 8),
    "SM8750": SoC("Snapdragon 8 Elite", 69, 79, 8),
    "SM8850": SoC("Snapdragon 8 Elite Gen 5", 87, 81, 8),
    "SC8380XP": SoC("Snapdragon X Elite", 60, 73, 8),
    "QCS9100": SoC("Dragonwing IQ-9", 77, 73, 8),
}


class Options(Strict):
    """Options of a recipe for the HTP.

    Attributes
    ----------
    socs : str
        Names of `SOCS`, separated by commas: a context binary is made for each. The first one is
        emulated.
    """

    socs: str = "SM8650"

    @field_validator("socs")
    @classmethod
    def _known(cls, text: str) -> str:
        names = _names(text)
        unknown = [name for name in names if name not in SOCS]
        if unknown or not names:
            raise ValueError(f"there is no SoC {unknown or text!r} (there are: {', '.join(SOCS)})")
        return text

    @property
    def names(self) -> list[str]:
        """The recipe's SoCs."""
        return _names(self.socs)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


class QualcommHTPBackend:
    """The target's backend; see `interface.Backend`."""

    target = "qualcomm-htp"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Export opset 20 (QNN knows no ``Attention``), and compile it for each SoC."""
        if job.input.layout != "NCHW":
            raise SepViTError(
                "QNN miscompiles uint8 pixels (2.51: SQNR of -3 dB); set "
                'form = "rows-float" in [edge]'
            )
        names = job.recipe.options_as(Options).names
        model = export_onnx(job, 20)
        keep_weights_normal(model)
        write_onnx(model, job, folder / MODEL)
        for index, name in enumerate(names, 1):
            job.step(f"compiling for {name} ({index} of {len(names)})")
            trace = _compile(folder, name)
            placement = _placement(trace, job, names)
            if placement.outside:  # nothing was compiled; the recipe's budget says so
                break
        return placement

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> QualcommHTPSession:
        """Load the program of the recipe's first SoC into the emulation."""
        name = manifest.runtime.options_as(Options).names[0]
        return QualcommHTPSession(folder, name, threads)

    def verification(self) -> Verification:
        """Return "emulated": only the runner, on a device, reaches the HTP."""
        return "emulated"


def _provider_options(soc: SoC) -> dict[str, str]:
    return {
        "soc_model": str(soc.model),
        "htp_arch": str(soc.arch),
        "vtcm_mb": str(soc.vtcm_mb),
        "htp_graph_finalization_optimization_mode": "3",  # the best program, however long it takes
        "enable_htp_fp16_precision": "1",  # what is float32 in the file, float16 on the HTP
        "offload_graph_io_quantization": "0",  # or the CPU would quantise
    }


def _compile(folder: Path, name: str) -> dict[str, Any]:
    """Compile for an SoC, and return the provider's trace of what it did with each node.

    If the trace has nodes that it rejects, no program is written.
    """
    options = _provider_options(SOCS[name])

    def make(made: Path) -> None:
        worker = Worker()
        try:
            worker.call("compile_context", str(folder / MODEL), options, str(made), name)
        except WorkerError as error:
            if (made / TRACE).exists() and _read(made / TRACE)["unsupported_nodes"]:
                return
            raise CheckFailed(
                f"QNN cannot compile the model for {name}, and does not name an operation: {error}"
            ) from None
        finally:
            worker.close()
        _take_over_padding(made / f"{name}_qnn.bin")

    versions = versions_used(_TOOLS)
    cached(folder, make, {"qnn": versions, "name": name, **options, "model": folder / MODEL})
    trace = _read(folder / TRACE)
    (folder / TRACE).unlink()
    return trace


def _take_over_padding(program: Path) -> None:
    """During verification keep the package's program if only padding differs from the new one.

    QNN's compiler does not clear the padding of constants: of 7.5 MB up to 2,900 bytes differed in
    each of ten compilations. The file that is compiled is compared byte for byte, and the program
    that is kept has to give the stated logits.
    """
    package = verified_package()
    if package is None or not (package / program.name).exists():
        return
    new, own = (np.fromfile(f, np.uint8) for f in (program, package / program.name))
    if new.size == own.size and (new != own).mean() < _PADDING:
        shutil.copyfile(package / program.name, program)


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def _placement(trace: dict[str, Any], job: LoweringJob, names: list[str]) -> Placement:
    """Count QNN's operations by precision; each names the nodes of the model that it came from."""
    builder = PlacementBuilder(job.program)
    unit = builder.place("HTP", accelerated=True)
    for subgraph in trace["subgraph_traces"]:
        for operation in subgraph["op_mappings"]:
            sources = [s["name"] for s in operation["sources"] if s["type"] == "OP"]
            # QNN takes "dequantize, compute, quantize" together as one operation on integers.
            integers = len(sources) > 1 and any(_dequantizes(source) for source in sources)
            precision = "int8" if integers else "fp16"
            nodes = [_COPY.sub("", source) for source in sources]
            unit.add(precision, operation["dst_qnn_op_type"], nodes)
    for node in trace["unsupported_nodes"]:
        name = _COPY.sub("", node["node_name"])
        builder.outside(name, node["op_type"], f"QNN says: {node['reason']}")
    return builder.placement(f"Hexagon HTP: {', '.join(names)}")


def _dequantizes(name: str) -> bool:
    name = _COPY.sub("", name)
    return "dequantize" in name.lower() or name.endswith("_dq")


class QualcommHTPSession(Session):
    """The program of one SoC in the emulation; see `interface.Session`.

    Results are cached.
    """

    def __init__(self, folder: Path, name: str, threads: int | None) -> None:
        self._folder, self._name, self._threads = folder, name, threads
        program = folder / f"{name}_qnn.bin"
        if not program.exists():
            raise SepViTError(
                f"{folder} has no program for {name}: the HTP does not support some of its "
                "operations, and there is no fallback to the CPU"
            )
        self._key = {"qnn": versions_used(_TOOLS), "program": file_sha256(program)}

    @cached_property
    def _worker(self) -> Worker:
        worker = Worker()
        self._call(worker, "load", str(self._folder / f"{self._name}.onnx"))
        return worker

    def _call(self, worker: Worker, name: str, *arguments: Any) -> Any:
        try:
            return worker.call(name, *arguments)
        except WorkerError as error:
            raise SepViTError(
                f"QNN cannot {name} {self._folder / self._name}.onnx, export again: {error}"
            ) from None

    @cached_property
    def on_cpu(self) -> ONNXRuntimeSession:
        """The same model file on ONNX Runtime's CPU provider."""
        return ONNXRuntimeSession(self._folder, self._threads)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch; about a second an image of 64 pixels, and several of 224."""
        return cached_arrays(
            lambda: self._call(self._worker, "run", pixels), {**self._key, "pixels": pixels}
        )

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Refuse: the emulation's times are not the HTP's."""
        raise SepViTError(
            "the emulation's times say nothing about the HTP; profile the package on "
            "the device: sepvit-edge profile --help"
        )


backend = QualcommHTPBackend()
