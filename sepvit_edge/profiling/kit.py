"""The kit: small programs that the host lowers and the device times beside a package.

- A chain of matrix products, in the package's runtime and settings: the rate that its operations
  are compared with.
- For ExecuTorch, whose wheel has no event tracer: the model cut into its parts, and a program that
  does nothing, whose time is the cost of a call.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.passes.split_module import split_module

from ..backends.interface import LoweringJob
from ..backends.registry import get_backend
from ..config.recipe import Recipe
from ..files import cache_folder, file_sha256
from ..model.graph import name_nodes, part_of
from ..package.manifest import Manifest
from ..package.replacing import replacing
from ..quantization.scheme import Int8Layer, uncalibrated_layer
from .attribution import OVERHEAD, program_of

# Rows, and the widths between which the rows go to and fro: 3.7 GMACs, as in SepViT-T's MLPs.
_ROWS, _NARROW, _WIDE = 784, 768, 3072
_MODELS = {"openvino": "model.xml", "onnxruntime": "model.onnx", "executorch": "model.pte"}


# A module, and the inputs that it had in one run of the model.
Piece = tuple[torch.nn.Module, tuple[torch.Tensor, ...]]


class Chain(torch.nn.Module):
    """Two products and nothing between them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(_NARROW, _WIDE)
        self.down = torch.nn.Linear(_WIDE, _NARROW)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, C) -> (rows, C)."""
        return self.down(self.up(x))


class Nothing(torch.nn.Module):
    """The cheapest program that a runtime accepts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 1) -> (1, 1)."""
        return x + x


def make_kit(manifest: Manifest, step: Callable[[str], None]) -> Path | None:
    """Lower a package's kit, or take it from the cache.

    Returns
    -------
    Path or None
        A folder with kit.json; None for runtimes that do not run under Python.
    """
    if manifest.target not in _MODELS:
        return None
    facts = {
        "model": manifest.model.model_dump(mode="json"),
        "batch": manifest.input.shape[0],
        "recipe": manifest.recipe,
        "runtime": manifest.runtime.version,
        "code": file_sha256(Path(__file__)),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    destination = cache_folder() / "kits" / f"{manifest.target}-{key}"
    if (destination / "kit.json").is_file():
        return destination
    shutil.rmtree(destination, ignore_errors=True)
    is_int8 = manifest.precision == "int8"
    with replacing(destination, force=False) as folder, warnings.catch_warnings():
        # torch 2.13 copies its own deprecated tree specs.
        warnings.simplefilter("ignore", FutureWarning)
        step("lowering the chain of products")
        content: dict[str, Any] = {"gemm": _lower_chain(manifest, folder), "parts": []}
        if manifest.target == "executorch":
            weights = "in int8 with placeholder scales" if is_int8 else "in float32"
            content["parts_method"] = (
                "each part exported alone and timed in turn with the whole, medians, less the time "
                f"of a program that does nothing; weights {weights}"
            )
            content["parts"] = _lower_parts(manifest, folder, step)
        (folder / "kit.json").write_text(json.dumps(content, indent=2))
    return destination


def _lower_chain(manifest: Manifest, folder: Path) -> dict[str, Any]:
    """Lower the products as the package was lowered, in its precision."""
    recipe = Recipe(
        target=manifest.target, precision=manifest.precision, options=manifest.runtime.options
    )
    chain = Chain().eval()
    if manifest.precision == "int8":
        for name, layer in (("up", chain.up), ("down", chain.down)):
            chain.set_submodule(name, Int8Layer(layer, uncalibrated_layer(layer)))
    program = _trace(chain, (torch.zeros(_ROWS, _NARROW),))
    shape = [_ROWS, _NARROW]
    facts = {"shape": shape, "dtype": "float32", "layout": "NCHW"}
    job = LoweringJob(
        program=program,
        outputs=("logits",),
        recipe=recipe,
        labels=(),
        model=manifest.model,
        input=manifest.input.model_copy(update=facts),
    )
    with torch.no_grad():
        get_backend(manifest.target).lower(job, folder)
    file = _MODELS[manifest.target]
    return {
        "file": file,
        "inputs": [{"shape": shape, "dtype": "float32"}],
        "macs": 2 * _ROWS * _NARROW * _WIDE,
        "method": f"the runtime's own products of {_ROWS} x {_NARROW} x {_WIDE}, "
        f"{manifest.precision}",
    }


def _trace(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> ExportedProgram:
    table = torch.export.default_decompositions()
    table.pop(torch.ops.aten.linear.default, None)
    program = torch.export.export(module, inputs).run_decompositions(table)
    name_nodes(program)
    return program


def _lower_parts(
    manifest: Manifest, folder: Path, step: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Cut the traced model where its parts meet, and lower each piece for XNNPACK."""
    nothing: Piece = (Nothing(), (torch.zeros(1, 1),))
    parts = [("nothing", OVERHEAD, *nothing)]
    parts += [(name, "part", *piece) for name, piece in _pieces(program_of(manifest)).items()]
    entries = []
    files: dict[str, str] = {}
    for index, (name, kind, module, inputs) in enumerate(parts):
        step(f"lowering part {index + 1} of {len(parts)}")
        # Blocks of one shape share a file; each loads it again, so their weights stay apart.
        shape = _shape_of(module, inputs)
        if shape not in files:
            files[shape] = f"part-{len(files)}.pte"
            (folder / files[shape]).write_bytes(_lower_part(module, inputs))
        facts = [
            {"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")} for x in inputs
        ]
        entries.append({"name": name, "kind": kind, "file": files[shape], "inputs": facts})
    return entries


def _shape_of(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> str:
    """Return a text of what decides a piece's time: its operations and shapes, not its weights."""
    if not isinstance(module, GraphModule):
        return type(module).__name__
    tensors = [*inputs, *module.state_dict().values()]
    operations = [
        f"{node.target} {[a for a in node.args if not isinstance(a, Node)]}"
        for node in module.graph.nodes
        if node.op == "call_function"
    ]
    return repr(([(tuple(x.shape), x.dtype) for x in tensors], operations))


def _pieces(program: ExportedProgram) -> dict[str, Piece]:
    """Return the pieces of the model by name, each with the inputs that it had in one run."""
    whole = program.module(check_guards=False)
    assert isinstance(whole, GraphModule)
    names: list[str] = []

    def piece(node: Node) -> int:
        part = part_of(node.name)
        if part is not None and (not names or part_of(names[-1]) != part):
            names.append(f"{part.replace('.', '_')}__{len(names)}")
        return max(len(names) - 1, 0)

    split = split_module(whole, whole, piece)
    for node in split.graph.nodes:
        if node.op == "call_module":
            _take_weights(split, node)
    found: dict[str, Piece] = {}

    class Recorder(Interpreter):
        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            name = names[int(str(target).removeprefix("submod_"))]
            found[name] = (self.fetch_attr(target), tuple(x.detach() for x in args))
            return super().call_module(target, args, kwargs)

    inputs = [
        torch.zeros(node.meta["val"].shape, dtype=node.meta["val"].dtype)
        for node in whole.graph.nodes
        if node.op == "placeholder"
    ]
    with torch.no_grad():
        Recorder(split).run(*inputs)
    return found


def _take_weights(split: GraphModule, call: Node) -> None:
    """Move the weights that a piece is given into the piece: XNNPACK wants them constant."""
    piece = split.get_submodule(str(call.target))
    assert isinstance(piece, GraphModule)
    places = [node for node in piece.graph.nodes if node.op == "placeholder"]
    kept = []
    for place, given in zip(places, call.args, strict=True):
        if not isinstance(given, Node) or given.op != "get_attr":
            kept.append(given)
            continue
        value = operator.attrgetter(str(given.target))(split)
        name = re.sub(r"\W", "_", str(given.target))
        piece.register_parameter(name, torch.nn.Parameter(value.detach(), requires_grad=False))
        with piece.graph.inserting_before(place):
            place.replace_all_uses_with(piece.graph.get_attr(name))
        piece.graph.erase_node(place)
    call.args = tuple(kept)
    piece.recompile()
    split.recompile()


def _lower_part(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> bytes:
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
    from executorch.exir.passes import MemoryPlanningPass

    from ..backends.support.xnnpack_patches import few_transposes, partitioner

    config = EdgeCompileConfig(
        preserve_ops=[torch.ops.aten.linear.default], _check_ir_validity=False
    )
    # What goes in and out is not copied, as between the parts of the whole.
    in_place = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    logger = logging.getLogger("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    disabled, logger.disabled = logger.disabled, True  # it logs every refused node
    try:
        edge = to_edge(_trace(module, inputs), compile_config=config)
        with few_transposes():
            lowered = edge.to_backend(partitioner())
        program = lowered.to_executorch(ExecutorchBackendConfig(memory_planning_pass=in_place))
        buffer: bytes = program.buffer
    finally:
        logger.disabled = disabled
    return buffer
