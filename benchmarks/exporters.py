"""Any module as a model file of a runtime: by the runtime's own exporter, or by our backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sepvit_edge.backends.interface import LoweringJob, Session
from sepvit_edge.backends.registry import get_backend
from sepvit_edge.config.recipe import Recipe
from sepvit_edge.model.edge import EdgeModel, Form, find_form
from sepvit_edge.model.graph import WHOLE, name_nodes
from sepvit_edge.model.reference import SepViT
from sepvit_edge.package.manifest import InputFacts, Manifest, ModelFacts, RuntimeFacts
from sepvit_edge.pipeline.lowering import lowering_job

Call = Callable[[], np.ndarray]


@dataclass(frozen=True)
class ModelFile:
    """A model file that one of the runtimes opens, in any process.

    Attributes
    ----------
    runtime : str
        ``"openvino"``, ``"onnxruntime"`` or ``"executorch"``.
    folder : Path
        Folder with the file, named as in a package.
    shape : tuple of int
        Shape of the input.
    dtype : str
        Its type.
    options : mapping
        As in a recipe.
    """

    runtime: str
    folder: Path
    shape: tuple[int, ...]
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, threads: int) -> Session:
        """Load the file as a package's is loaded."""
        manifest = Manifest.model_construct(
            runtime=RuntimeFacts.model_construct(options=dict(self.options)),
            input=InputFacts.model_construct(shape=list(self.shape)),
        )
        return get_backend(self.runtime).open(self.folder, manifest, threads)

    def call(self, threads: int, x: np.ndarray | None = None) -> Call:
        """Load the file and return a call of it, on `x` or on random values."""
        session = self.open(threads)
        if x is None:
            values = np.random.default_rng(0).integers(0, 256, self.shape)
            x = (values if self.dtype == "uint8" else values / 256).astype(self.dtype)
        return lambda: session.run(x)[0]


def export_naive(runtime: str, module: nn.Module, x: torch.Tensor, folder: Path) -> ModelFile:
    """Export a module as it stands, by the runtime's own exporter.

    OpenVINO converts the program of torch.export; ONNX Runtime gets the exporter's graph at opset
    20; ExecuTorch has XNNPACK where its partitioner takes an operation, portable kernels elsewhere.
    """
    with torch.no_grad():
        _NAIVE[runtime](module.eval(), x, folder)
    return ModelFile(runtime, folder, tuple(x.shape))


def _openvino(module: nn.Module, x: torch.Tensor, folder: Path) -> None:
    import openvino as ov

    from sepvit_edge.backends.openvino import MODEL

    converted = ov.convert_model(torch.export.export(module, (x,)))
    ov.save_model(converted, folder / MODEL, compress_to_fp16=False)


def _onnxruntime(module: nn.Module, x: torch.Tensor, folder: Path) -> None:
    from sepvit_edge.backends.onnxruntime import MODEL

    path = folder / MODEL
    settings = {"opset_version": 20, "external_data": False, "verbose": False}
    torch.onnx.export(module, (x,), path, dynamo=True, **settings)


def _executorch(module: nn.Module, x: torch.Tensor, folder: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from sepvit_edge.backends.executorch import MODEL

    program = torch.export.export(module, (x,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    (folder / MODEL).write_bytes(lowered.to_executorch().buffer)


_NAIVE = {"executorch": _executorch, "onnxruntime": _onnxruntime, "openvino": _openvino}


def lower(job: LoweringJob, folder: Path) -> ModelFile:
    """Write a job's model file by the package's own backend."""
    get_backend(job.recipe.target).lower(job, folder)
    shape, options = tuple(job.input.shape), job.recipe.options
    return ModelFile(job.recipe.target, folder, shape, job.input.dtype, options)


def export_classifier(
    model: SepViT, recipe: Recipe, folder: Path, batch: int = 1, form: Form | None = None
) -> ModelFile:
    """Export a classifier by a recipe, in its form or another; what is not timed is left out."""
    with torch.no_grad():
        edge = EdgeModel(model, batch, form or find_form(recipe.edge.form))
        return lower(lowering_job(model, edge, recipe), folder)


def export_block(module: nn.Module, x: torch.Tensor, recipe: Recipe, folder: Path) -> ModelFile:
    """Export a module in the style of the edge form, rows (float32) in and out, as a network is."""
    table = torch.export.default_decompositions()
    for whole in WHOLE:
        table.pop(whole, None)
    with torch.no_grad():
        program = torch.export.export(module.eval(), (x,)).run_decompositions(table)
    name_nodes(program)
    facts = InputFacts.model_construct(name="rows", shape=list(x.shape), dtype="float32")
    model = ModelFacts.model_construct(name="block")
    return lower(LoweringJob(program, ("result",), recipe, (), model, facts), folder)
