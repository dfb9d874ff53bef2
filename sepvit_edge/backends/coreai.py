"""Core AI, which follows Core ML on Apple's systems of 2026: model.aimodel.

`coreai-core` brings its runtime for Linux too, without the compilers of the Neural Engine and the
GPU, which are part of iOS 27 and macOS 27. It computes packages on the CPU.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch.fx import Node

with warnings.catch_warnings():
    # It compares with torch's version and its local part, as 2.13.0+cpu, which is "later" to it.
    warnings.filterwarnings("ignore", message="coreai-torch has only been validated")
    from coreai_torch import TorchConverter
from coreai._compiler.dialects import coreai as mlir
from coreai._compiler.ir import Module
from coreai.authoring import AIModelAsset, AIProgram
from coreai.runtime import InferenceFunction, NDArray, SpecializationOptions

from ..config.toml import Strict
from ..errors import SepViTError
from ..model.graph import macs_by_operation
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session, check_input
from .support.half import halved
from .support.placement import PlacementBuilder
from .versions import versions_used

MODEL = "model.aimodel"
_ENTRY = "main"
# Names that are new every time: of constants by a hash with a random seed, of graphs by chance.
_RANDOM = re.compile(r"\bresource_\d+\b|@(?P<graph>\w+)_[a-z]{8}\b")
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "si8": "int8"}
_MOVES = ("pad", "reshape", "transpose")
_PRODUCTS = ("conv2d", "broadcasting_batch_matmul", "batch_matmul")
_T = TypeVar("_T")


class Options(Strict):
    """Options of a Core AI recipe. An app states where it computes.

    Attributes
    ----------
    between_layers : str
        Precision between the int8 layers of an int8 package: ``"float16"``, which the Neural
        Engine needs, or ``"float32"`` for the answers that other runtimes give.
    """

    between_layers: Literal["float16", "float32"] = "float16"


class CoreAIBackend:
    """The target's backend; see `interface.Backend`."""

    target = "coreai"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Convert the program, and give names that are the same every time.

        Raises
        ------
        SepViTError
            If the converter does not take the program.
        """
        between = job.recipe.options_as(Options).between_layers
        _check(job)
        half = {"fp32": False, "fp16": True, "int8": between == "float16"}[job.recipe.precision]
        program = halved(job.program) if half else job.program
        converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)
        for name, lowering in _LOWERINGS.items():
            converter.register_torch_lowering(name)(lowering)
        try:
            with redirect_stdout(sys.stderr), _without_native_log():
                converted = converter.add_exported_program(
                    program,
                    input_names=[job.input.name],
                    output_names=[_valid(name) for name in job.outputs],
                ).to_coreai()
                named = _renamed(converted)
                named.save_asset(folder / MODEL)
        except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise SepViTError(f"coreai-torch cannot convert the model: {_line(error)}") from None
        _describe(folder / MODEL, job)
        return _placement(named, job)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> CoreAISession:
        """Load the model; the runtime chooses its threads."""
        return CoreAISession(folder / MODEL, manifest)

    def verification(self) -> Verification:
        """Return "run" on macOS 27; elsewhere the wheel's runtime computes, on the CPU alone."""
        return "run" if SpecializationOptions.is_supported() else "simulated"


def _check(job: LoweringJob) -> None:
    """Refuse means that are linears with one output: coreai-core 1.0.0b3 ends the process."""
    means = [
        node
        for node in job.program.graph.find_nodes(
            op="call_function", target=torch.ops.aten.linear.default
        )
        if node.meta["val"].shape[-1] == 1 and not node.name.startswith("head_classifier")
    ]
    if means:
        raise SepViTError(
            f'Core AI does not take the edge form "{job.recipe.edge.form}", whose means are '
            'linears with one output; the recipe needs [edge] form = "rows-float"'
        )


def _valid(name: str) -> str:
    """Turn a tap's name into an identifier: ``stages.0.cpe`` -> ``stages_0_cpe``."""
    return re.sub(r"\W", "_", name)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# Lowerings of operations that coreai-torch has none for, or only under its own names.


def _inputs(values: dict[str, Any], node: Node) -> list[Any]:
    return [values[argument.name] for argument in node.all_input_nodes]


def _linear(values: dict[str, Any], node: Node, _: Any) -> Any:
    x, weight, *bias = _inputs(values, node)
    y = mlir.broadcasting_batch_matmul(x, mlir.transpose(weight, np.array([1, 0], np.uint32)))
    return mlir.broadcasting_add(y, bias[0]) if bias else y


def _quantize(values: dict[str, Any], node: Node, _: Any) -> Any:
    return mlir.quantize(*_inputs(values, node), *_grid(node))


def _dequantize(values: dict[str, Any], node: Node, _: Any) -> Any:
    return mlir.dequantize(*_inputs(values, node), *_grid(node))


def _grid(node: Node) -> tuple[np.ndarray, ...]:
    """Return scale, zero point, offset and all axes of an activation, as the dialect has them."""
    scale: Any = node.args[1]
    zero: Any = node.args[2]
    axes = np.arange(node.meta["val"].ndim, dtype=np.int32)
    dtype = _float(node)
    return np.array(scale, dtype), np.array(zero, np.int8), np.array(0, dtype), axes


def _float(node: Node) -> type[np.generic]:
    """Return the type of the floats that an operation reads or makes: of its scale and offset.

    Mixed types convert, and end the process at the first run.
    """
    types = {each.meta["val"].dtype for each in (node, node.all_input_nodes[0])}
    return np.float16 if torch.float16 in types else np.float32


def _dequantize_weight(values: dict[str, Any], node: Node, _: Any) -> Any:
    """Restore a stored weight, which has a symmetric scale a channel, along the first axis."""
    integers, scale, _ = _inputs(values, node)
    shape = [len(node.meta["val"]), *[1] * (node.meta["val"].ndim - 1)]
    scale = mlir.reshape(scale, np.array(shape, np.uint32))
    zero, offset = np.zeros(shape, np.int8), np.zeros(shape, _float(node))
    return mlir.blockwise_shift_scale(integers, scale, zero, offset)


_LOWERINGS: dict[str, Callable[..., Any]] = {
    "aten::linear.default": _linear,
    "quantized_decomposed::quantize_per_tensor.default": _quantize,
    "quantized_decomposed::dequantize_per_tensor.default": _dequantize,
    "quantized_decomposed::dequantize_per_channel.default": _dequantize_weight,
}


def _renamed(program: AIProgram) -> AIProgram:
    """Number the names that are random, in the order of the program's text."""
    numbers: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        kind = f"@{match['graph']}" if match["graph"] else "weights"
        return numbers.setdefault(match[0], f"{kind}_{len(numbers)}")

    module = program._module._mlir_module
    text = _RANDOM.sub(name, module.operation.get_asm(enable_debug_info=True))
    with module.context:
        return AIProgram._from_mlir_module(Module.parse(text))


def _describe(package: Path, job: LoweringJob) -> None:
    """Write what Xcode shows; it depends on neither time nor machine of the export."""
    model = job.model

    def write(metadata: Any) -> None:
        metadata.creation_date = None
        metadata.model_description = (
            f"{model.name}: image {job.task}, {model.num_classes} classes, {job.recipe.precision}; "
            "takes RGB pixels 0-255, normalised inside"
        )
        metadata.license = (
            "Apache-2.0 (the program; the weights have the licence of their checkpoint)"
        )
        for fact, value in model.model_dump(exclude={"form"}, exclude_none=True).items():
            metadata.set_custom(fact, str(value))
        metadata.set_custom("labels", list(job.labels))
        metadata.set_custom("preprocessing", job.input.model_dump_json(exclude_none=True))
        metadata.set_custom("sepvit-edge", versions_used(["sepvit-edge"])["sepvit-edge"])

    AIModelAsset.load(package).update_metadata(write)
    file = package / "metadata.json"  # whose keys come in another order every time
    facts = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _placement(program: AIProgram, job: LoweringJob) -> Placement:
    """Count the operations of the program; the device decides where each runs.

    The file has no names, so its products are matched with those of the traced graph, in order.
    """
    operations = _operations(program)
    names = list(macs_by_operation(job.program))
    products = sum(kind in _PRODUCTS for kind, _ in operations)
    sources = iter(names if products == len(names) else ())
    builder = PlacementBuilder(job.program)
    place = builder.place("Core AI program", accelerated=False)
    for kind, precision in operations:
        name = next(sources, "") if kind in _PRODUCTS else ""
        place.add(precision, kind, [name])
    return builder.placement("not decided on this system")


def _operations(program: AIProgram) -> list[tuple[str, str]]:
    """Return kind and precision of the operations of the entry point.

    What is made of constants alone is left out, and a graph that is invoked is one operation, as
    for the device's compilers. A product of int8 weights with dequantised values is int8.
    """
    graphs = {
        graph.attributes["sym_name"].value: graph
        for graph in program._module._mlir_module.body.operations
    }
    constants: set[Any] = set()
    int8: set[Any] = set()
    operations = []
    for operation in graphs[_ENTRY].regions[0].blocks[0].operations:
        kind, operands = operation.name.rpartition(".")[2], list(operation.operands)
        if kind in ("dequantize", "blockwise_shift_scale") or (
            kind in _MOVES and operands[0] in int8
        ):
            int8 |= set(operation.results)
        if constants.issuperset(operands):
            constants |= set(operation.results)
        elif kind != "output":
            element = str(operation.results[0].type.element_type)
            precision = _PRECISIONS.get(element, element)
            if kind in _PRODUCTS and int8.issuperset(operands[:2]):
                precision = "int8"
            if kind == "invoke":
                kind = str(operation.attributes["callee"]).partition("@")[2].rpartition("_")[0]
            operations.append((kind, precision))
    return operations


@contextmanager
def _without_native_log() -> Iterator[None]:
    """Keep the runtime's log, which passes Python's stream, off standard error."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


class CoreAISession(Session):
    """A package in Core AI's runtime; see `interface.Session`.

    The runtime is asynchronous. Its loop has a thread to itself, so that a session can be used
    where another loop runs, as in a notebook.
    """

    def __init__(self, package: Path, manifest: Manifest) -> None:
        self._input, self._shape = manifest.input.name, tuple(manifest.input.shape)
        self._dtype = np.dtype(manifest.input.dtype).type
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._loop = asyncio.new_event_loop()
        if not AIModelAsset.is_valid(package):  # which the runtime ends the process for
            raise SepViTError(f"{package} is no Core AI model; export again")
        try:
            with _without_native_log():
                self._function = self._wait(_load(package))
        except RuntimeError as error:
            raise SepViTError(f"Core AI cannot load {package}: {_line(error)}") from None
        self._outputs = self._function.desc.output_names

    def _wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self._thread.submit(self._loop.run_until_complete, coroutine).result()

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch."""
        check_input(pixels, self._shape, self._dtype)
        try:
            results = self._wait(self._run(pixels))
        except RuntimeError as error:
            raise SepViTError(f"Core AI cannot run the package: {_line(error)}") from None
        return results

    async def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        results = await self._function({self._input: NDArray(pixels)})
        # A copy: the arrays are views of the runtime's buffers.
        return [np.array(results[name].numpy(), np.float32) for name in self._outputs]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Refuse: times of operations on another processor say nothing about a device."""
        raise SepViTError(
            "Core AI's times of operations come from Instruments, on a Mac or a connected device"
        )


async def _load(package: Path) -> InferenceFunction:
    """Compile the program for this system; the function outlives the block."""
    async with AIModelAsset.load(package).executable() as model:
        return model.load_function(_ENTRY)


backend = CoreAIBackend()
