"""Arm Ethos-U through ExecuTorch's Arm backend and Vela: model.pte, and model.tosa beside it.

ExecuTorch turns the quantised program into TOSA, the instruction set that specifies Arm's NPUs,
and Vela compiles that for one of them. Neither needs an Ethos-U. The device does not use
model.tosa: Arm's reference model of TOSA runs it to check the package.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import ethosu  # noqa: F401  (runs in a process; imported so that its absence is noticed early)
import executorch  # noqa: F401  (its parts, which take seconds, are imported where they are used)
import numpy as np
import torch
import tosa_reference_model  # noqa: F401  (likewise)
from torch.export import ExportedProgram

from ..config.toml import Strict
from ..errors import SepViTError
from ..model.graph import part_of
from ..package.manifest import Estimate, Manifest, Placement
from ..package.verification import Verification
from .executorch import quiet
from .interface import LoweringJob, OpTiming, Session, check_input
from .support.arm_patches import VELA, VELA_COMPILE, few_passes, sums_rounded
from .support.cache import cached, cached_arrays
from .support.executorch_graph import kind_of, operations
from .support.placement import PlacementBuilder

if TYPE_CHECKING:
    from torch.fx import Node

TARGET = "ethos-u"
MODEL, TOSA = "model.pte", "model.tosa"
_PLACEMENT = "placement.json"
_TOOLS = ("executorch", "ethos-u-vela", "tosa-tools")
_NAME = "sepvit_edge_name"


class Options(Strict):
    """Options of an Ethos-U recipe.

    Attributes
    ----------
    accelerator : str
        The NPU and its multiply-accumulates per cycle.
    memory_mode : str
        Memories that Vela uses: ``"Sram_Only"``, everything in SRAM; ``"Shared_Sram"``, weights in
        flash or DRAM; ``"Dedicated_Sram"``, activations there too and the SRAM as a cache.
    system_config : str
        Clock and bandwidths that Vela assumes, by their name in its ``Arm/vela.ini``. Default: the
        Arm backend's choice for the NPU.
    """

    accelerator: Literal[
        "ethos-u55-32",
        "ethos-u55-64",
        "ethos-u55-128",
        "ethos-u55-256",
        "ethos-u65-256",
        "ethos-u65-512",
        "ethos-u85-128",
        "ethos-u85-256",
        "ethos-u85-512",
        "ethos-u85-1024",
        "ethos-u85-2048",
    ] = "ethos-u85-256"
    memory_mode: Literal[
        "Sram_Only", "Shared_Sram", "Dedicated_Sram", "Dedicated_Sram_384KB", "Dedicated_Sram_512KB"
    ] = "Sram_Only"
    system_config: str = ""


class EthosUBackend:
    """The target's backend; see `interface.Backend`."""

    target = TARGET

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Lower to one TOSA graph and compile it; this takes minutes, so the result is cached.

        Raises
        ------
        SepViTError
            If the toolchain rejects the model; the sentence names the block if it is known.
        """
        options = job.recipe.options_as(Options)
        if job.recipe.quantization.scheme != "full":
            raise SepViTError(
                'Ethos-U computes integers only: the recipe needs [quantization] scheme = "full"'
            )

        def make(made: Path) -> None:
            (made / _PLACEMENT).write_text(_lower(job, options, made).model_dump_json())

        key = {"tools": _versions(), "options": options.model_dump(), "form": 1}
        cached(folder, make, key | {"program": _content(job.program)})
        text = (folder / _PLACEMENT).read_text(encoding="utf-8")
        (folder / _PLACEMENT).unlink()
        return Placement.model_validate_json(text)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> EthosUSession:
        """Load into TOSA's reference model, which has one thread."""
        return EthosUSession(folder, manifest.input.shape)

    def verification(self) -> Verification:
        """TOSA's reference model computes what Arm specifies for the NPU, integer by integer."""
        return "reference model"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _TOOLS}


def _content(program: ExportedProgram) -> dict[str, object]:
    """Return everything that a lowering depends on: operations, shapes, constants."""
    nodes = [[n.name, str(n.target), str(n.args), str(n.kwargs)] for n in program.graph.nodes]
    constants = {name: value.detach().numpy() for name, value in program.state_dict.items()}
    return {"nodes": nodes, "constants": constants}


def _lower(job: LoweringJob, options: Options, folder: Path) -> Placement:
    job.step("lowering to TOSA")
    with _quiet(), few_passes(), sums_rounded(), _compiling(options, job.step) as compiled:
        import executorch.kernels.quantized  # noqa: F401  (the kernel that makes logits float)
        from executorch.backends.arm.ethosu import EthosUPartitioner
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge

        config = EdgeCompileConfig(
            preserve_ops=[torch.ops.aten.linear.default],
            _check_ir_validity=False,
        )
        _mark_quantized(job.program)
        try:
            edge = to_edge(job.program, compile_config=config)
            edge = edge.to_backend(EthosUPartitioner(_specification(options)))
            program = edge.to_executorch(ExecutorchBackendConfig(extract_delegate_segments=False))
        except SepViTError:
            raise
        except Exception as error:  # of about a hundred passes, each with its own errors
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise SepViTError(
                f"ExecuTorch's Arm backend cannot lower the model{_where(str(cause))}: "
                f"{_first_line(cause)}"
            ) from error
    lowered = program.exported_program()
    if len(compiled) != 1:
        outside = [f"{node.name} ({kind_of(node)})" for node in operations(lowered)]
        raise SepViTError(
            f"the model became {len(compiled)} delegates for {options.accelerator}, and only one "
            f"can be checked; outside are {', '.join(outside[:5])}"
        )
    tosa, summary = compiled[0]
    (folder / MODEL).write_bytes(program.buffer)
    (folder / TOSA).write_bytes(tosa)
    return _placement(lowered, job, options, summary)


def _mark_quantized(program: ExportedProgram) -> None:
    """Mark every operation as quantised, and note its name, which lowering changes."""
    for node in program.graph.nodes:
        if node.op == "call_function" and not _is_conversion(node):
            node.meta["custom"] = {"_arm_annotation_info": {"quantized": True}, _NAME: node.name}


def _is_conversion(node: Node) -> bool:
    return "quantize" in str(getattr(node.target, "__name__", node.target))


def _specification(options: Options) -> Any:
    """Return the Arm backend's description of the NPU, with Vela's flags in it."""
    from executorch.backends.arm.ethosu import EthosUCompileSpec

    return EthosUCompileSpec(
        target=options.accelerator,
        memory_mode=options.memory_mode,
        system_config=options.system_config or None,
    )


def _run_vela(arguments: list[str], options: Options) -> None:
    """Run Vela's command in a process: it prints, and keeps state from one call to the next."""
    call = "from ethosu.vela.vela import main; main()"
    command = [sys.executable, "-c", call, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        raise SepViTError(
            f"Vela cannot compile the model for {options.accelerator} with "
            f"{options.memory_mode}{_where(done.stdout + done.stderr)}: {said[-1]}"
        )


def _summary(folder: Path) -> dict[str, str]:
    """Read the one line of the summary that Vela writes into its output folder."""
    (path,) = folder.glob("*_summary_*.csv")
    (row,) = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return row


def compile_tosa(tosa: bytes, options: Options) -> dict[str, str]:
    """Compile a TOSA graph and return Vela's summary of it, by its column names.

    Raises
    ------
    SepViTError
        With Vela's reason, if it refuses.
    """
    with tempfile.TemporaryDirectory() as scratch:
        graph, output = Path(scratch, "graph.tosa"), Path(scratch, "output")
        graph.write_bytes(tosa)
        flags = _specification(options).compiler_flags
        _run_vela([*flags, f"--output-dir={output}", str(graph)], options)
        return _summary(output)


@contextmanager
def _compiling(
    options: Options, step: Callable[[str], None]
) -> Iterator[list[tuple[bytes, dict[str, str]]]]:
    """Keep each TOSA graph that the Arm backend passes to Vela, with Vela's summary."""
    kept: list[tuple[bytes, dict[str, str]]] = []
    pack = VELA_COMPILE.original()  # compiles, and packs the result for the device's runtime

    def keep(tosa: bytes, flags: list[str], **_: object) -> bytes:
        step(f"compiling for {options.accelerator}")
        with tempfile.TemporaryDirectory() as scratch:
            binary: bytes = pack(tosa, list(flags), intermediate_path=scratch)
            kept.append((tosa, _summary(Path(scratch, "output"))))
        return binary

    vela = SimpleNamespace(main=lambda arguments: _run_vela(arguments, options))
    with VELA.replaced_by(vela), VELA_COMPILE.replaced_by(keep):
        yield kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the toolchain's notices about its own code off the terminal, all warnings too."""
    with quiet():
        warnings.simplefilter("ignore")
        yield


def _where(text: str) -> str:
    """`` in stages.2.blocks.4.psa``, where a message names an operation of ours."""
    for word in re.findall(r"(?:stages_\d|head_|input_)\w*", text):
        part = part_of(word)
        if part is not None:
            return f" in {part}"
    return ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _origin(node: Node) -> str:
    """Return the name of the job's node that a lowered node came from; else its own."""
    return str(node.meta.get("custom", {}).get(_NAME, node.name))


def _placement(
    program: ExportedProgram, job: LoweringJob, options: Options, summary: dict[str, str]
) -> Placement:
    """Read the lowered program back: the delegate's operations before they became TOSA."""
    delegates = [
        getattr(program.graph_module, n.target) for n in program.graph.nodes if n.op == "get_attr"
    ]
    inside = [
        node
        for delegate in delegates
        for node in operations(delegate.original_module)
        if not _is_conversion(node)
    ]
    builder = PlacementBuilder(job.program)
    unit = builder.place(options.accelerator, accelerated=True)
    for node in inside:
        unit.add("int8", kind_of(node), [_origin(node)])
    portable = builder.place("portable kernels", accelerated=False)
    for node in operations(program):
        name, kind = _origin(node), kind_of(node)
        portable.add("fp32", kind, [name])
        builder.outside(name, kind, _reason(kind))
    return builder.placement(options.accelerator, _estimates(options, summary))


def _reason(kind: str) -> str:
    if "quantize" in kind:
        return "the application uses floats, the NPU integers"
    return f"the NPU does not support {kind}"


def _estimates(options: Options, summary: dict[str, str]) -> tuple[Estimate, ...]:
    """Take what Vela expects from its summary, which has kilobytes and seconds."""
    source = (
        f"Vela {version('ethos-u-vela')} for {options.accelerator}, "
        f"{summary['system_config']}, {summary['memory_mode']}"
    )
    flash = float(summary["off_chip_flash_memory_used"]) + float(
        summary["on_chip_flash_memory_used"]
    )
    values = (
        ("latency", float(summary["inference_time"]) * 1e3, "ms"),
        ("cycles", float(summary["cycles_total"]), "cycles"),
        ("SRAM", float(summary["sram_memory_used"]) / 1024, "MiB"),
        ("DRAM", float(summary["dram_memory_used"]) / 1024, "MiB"),
        ("flash", flash / 1024, "MiB"),
    )
    return tuple(
        Estimate(what=what, value=float(f"{value:.4g}"), unit=unit, source=source)
        for what, value, unit in values
    )


class EthosUSession(Session):
    """A package in TOSA's reference model; see `interface.Session`.

    The reference model computes the delegate's integers; the dequantisation of the outputs, which
    is outside the delegate, is computed here as the program states it.
    """

    def __init__(self, folder: Path, shape: list[int]) -> None:
        self._shape, self._tosa = tuple(shape), (folder / TOSA).read_bytes()
        self._scales = _output_scales((folder / MODEL).read_bytes())

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch; seconds, so the result is cached."""
        check_input(pixels, self._shape, np.uint8)

        def make() -> list[np.ndarray]:
            return _run_reference_model(self._tosa, pixels)

        key = {"tool": version("tosa-tools"), "model": self._tosa, "pixels": pixels}
        integers = cached_arrays(make, key)
        return [
            ((values.astype(np.float32) - zero_point) * np.float32(scale))
            for values, (scale, zero_point) in zip(integers, self._scales, strict=True)
        ]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Refuse: the reference model's times are not the NPU's."""
        raise SepViTError("an Ethos-U cannot be timed here; the manifest has Vela's estimates")


# In a process: the model writes to its standard streams by itself, and cannot be interrupted.
_REFERENCE_MODEL = """
import sys, numpy, tosa_reference_model as model
graph, pixels, results = sys.argv[1:]
outputs, status = model.run(open(graph, "rb").read(), [numpy.load(pixels)])
if status != model.GraphStatus.TOSA_VALID:
    sys.exit(f"the graph is {status.name}")
numpy.savez(results, *outputs)
"""


def _run_reference_model(tosa: bytes, pixels: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a TOSA graph, integers, for one batch of pixels."""
    with tempfile.TemporaryDirectory() as scratch:
        graph, inputs, results = (Path(scratch, name) for name in ("graph", "in.npy", "out.npz"))
        graph.write_bytes(tosa)
        np.save(inputs, pixels)
        command = [sys.executable, "-c", _REFERENCE_MODEL, *map(str, (graph, inputs, results))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()
            raise SepViTError(f"TOSA's reference model cannot run the package: {said[-1]}")
        with np.load(results) as outputs:
            return [outputs[name] for name in outputs.files]


def _output_scales(data: bytes) -> list[tuple[float, int]]:
    """Return scale and zero point of each output of a program's delegate, in its order."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(data).program
    plan = program.execution_plan[0]
    scales: dict[int, tuple[float, int]] = {}
    delegate: list[int] = []
    for instruction in plan.chains[0].instructions:
        call = instruction.instr_args
        if hasattr(call, "delegate_index"):
            delegate = call.args
        elif "dequantize_per_tensor" in plan.operators[call.op_index].name:
            source, scale, zero_point = call.args[:3]
            value = lambda index: plan.values[index].val  # noqa: E731
            scales[source] = (value(scale).double_val, value(zero_point).int_val)
    return [scales[index] for index in delegate if index in scales]


backend = EthosUBackend()
