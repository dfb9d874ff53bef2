"""Write ONNX files, for every backend whose runtime or compiler reads them."""

from __future__ import annotations

import ast
import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from ..interface import LoweringJob
from .subnormal import DOWN, INPUT_NAME, UP


def export_onnx(job: LoweringJob, opset: int) -> ir.Model:
    """Export a job's program, its nodes named as there.

    Parameters
    ----------
    job : LoweringJob
        Job to lower.
    opset : int
        ONNX opset; 20 is the first with ``Gelu``, 23 with ``Attention``.

    Returns
    -------
    onnx_ir.Model
        For the backend to rewrite, and then for `write_onnx`.
    """
    with warnings.catch_warnings(), _no_notices():
        # torch 2.13 copies its own deprecated tree specs.
        warnings.simplefilter("ignore", FutureWarning)
        exported = torch.onnx.export(job.program, dynamo=True, verbose=False, opset_version=opset)
    assert exported is not None
    _name_nodes(exported.model)
    return exported.model


def keep_weights_normal(model: ir.Model) -> None:
    """Move a factor from the first convolution's weights to its input; `subnormal` says why."""
    conv = next(node for node in model.graph if node.op_type == "Conv")
    pixels, weight = conv.inputs[0], conv.inputs[1]
    assert pixels is not None and weight is not None and weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * UP, name=weight.name)
    down = ir.tensor(np.array(DOWN), name="input.scale")
    factor = ir.Value(name="input.scale", const_value=down)
    factor.type, factor.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    model.graph.register_initializer(factor)
    product = ir.node("Mul", [pixels, factor])
    product.outputs[0].name = INPUT_NAME
    product.outputs[0].type, product.outputs[0].shape = pixels.type, pixels.shape
    model.graph.insert_before(conv, product)
    conv.replace_input_with(0, product.outputs[0])


def write_onnx(model: ir.Model, job: LoweringJob, path: Path) -> None:
    """Add the facts to a model, check it and write it; the same job gives the same bytes."""
    _state_facts(model, job)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


@contextmanager
def _no_notices() -> Iterator[None]:
    """Silence the exporter's notice that torchvision, which it does not need, is missing."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _name_nodes(model: ir.Model) -> None:
    """Give nodes the names that `sepvit_edge.model.graph` gave the traced program.

    The exporter traces again and renumbers the nodes, but notes each one's module and operation.
    """
    names: dict[str, str] = {}
    used: Counter[str] = Counter()
    for node in model.graph:
        *_, module, traced = ast.literal_eval(node.metadata_props["pkg.torch.onnx.name_scopes"])
        classes = ast.literal_eval(node.metadata_props["pkg.torch.onnx.class_hierarchy"])
        if traced in names:  # one traced operation can become several
            name = f"{names[traced]}/{node.op_type}"
        else:
            operation = classes[-1].split(".")[1].strip("_")
            name = re.sub(r"\W", "_", f"{module}__{operation}")
        used[name] += 1
        name = f"{name}_{used[name] - 1}" if used[name] > 1 else name
        names.setdefault(traced, name)
        node.name = name
        for i, value in enumerate(node.outputs):
            value.name = f"{name}.{i}" if i else name


def _state_facts(model: ir.Model, job: LoweringJob) -> None:
    """Name inputs, outputs and nodes, add the manifest's facts, drop the exporter's notes.

    The notes are stack traces, with the paths of the machine that exported.
    """
    graph = model.graph
    for node in graph:
        node.name = node.outputs[0].name
    graph.inputs[0].name = job.input.name
    for value, name in zip(graph.outputs, job.outputs, strict=True):
        value.name = name
    noted: list[Any] = [model, graph, *graph.inputs, *graph.initializers.values(), *graph]
    for thing in [*noted, *(value for node in graph for value in node.outputs)]:
        thing.metadata_props.clear()
        thing.doc_string = None
    opset = onnx.helper.make_opsetid("", graph.opset_imports[""])
    model.ir_version = onnx.helper.find_min_ir_version_for([opset])
    model.producer_name, model.producer_version = "sepvit-edge", version("sepvit-edge")
    graph.name = job.model.name
    for kind, facts in (("model", job.model), ("input", job.input)):
        stated = facts.model_dump(mode="json", exclude={"form"}, exclude_none=True)
        for name, fact in stated.items():
            text = fact if isinstance(fact, str) else json.dumps(fact)
            model.metadata_props[f"{kind}.{name}"] = text
