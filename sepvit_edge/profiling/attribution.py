"""Attribution: from operations that a runtime timed to the parts of the network.

The operation's name says its part (`sepvit_edge.model.graph.part_of`), the same way for every
runtime. Beside each part's time stand its multiply-accumulates and the bytes that even a perfect
fusion would move, so that the machine's two roofs say what could still be gained.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from torch.export import ExportedProgram
from torch.fx import Node

from ..checkpoints.choose import random_dense, random_model
from ..config.recipe import Classifier, Precision, find_recipe, parse_recipe
from ..errors import SepViTError
from ..model.create import ReferenceModel
from ..model.dense import DenseConfig
from ..model.edge import find_form
from ..model.edge.make import edge_model
from ..model.graph import macs_by_operation, part_of, trace
from ..package.manifest import Manifest
from ..pipeline.facts import config_of
from ..quantization.scheme import apply_quantization, uncalibrated
from .document import AttributedPart, Attribution, Operation, Operations, Profile

# Bytes of a stored weight; what flows between layers is float32 in all packages so far.
_WEIGHT_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
_ACTIVATION_BYTES = 4
# What a runtime puts around a convolution for its own layout.
_BEFORE, _AFTER = ("ReorderInput",), ("ReorderOutput",)
OVERHEAD = "overhead"  # kind of the program that does nothing (`sepvit_edge.profiling.kit`)


@dataclass(frozen=True)
class Work:
    """The work of one part in one run.

    Attributes
    ----------
    macs : int
        Multiply-accumulates.
    moved_mb : float
        Weights, and activations that enter and leave, in 10^6 bytes.
    """

    macs: int
    moved_mb: float


def attributed(profile: Profile, manifest: Manifest) -> Profile:
    """Add the attribution to a document that has times of operations."""
    if profile.operations is None:
        return profile
    work = work_by_part(program_of(manifest), manifest.precision)
    return profile.model_copy(update={"attribution": attribute(profile.operations, work)})


def program_of(manifest: Manifest) -> ExportedProgram:
    """Trace a twin of a package's network: random weights, the same shapes and names.

    An int8 package's twin has the same layers in int8, with placeholder scales.
    """
    model = manifest.model
    config = config_of(manifest, tuple(str(i) for i in range(model.num_classes)))
    twin: ReferenceModel
    if isinstance(config, DenseConfig):
        twin = random_dense(config)
    else:
        twin = random_model(model.variant, model.num_classes, model.image_size, config.labels)
    edge = edge_model(twin, manifest.input.shape[0], find_form(model.form))
    if manifest.quantization is not None:
        floats = {layer.name: layer.reason for layer in manifest.quantization.float_layers}
        apply_quantization(edge, uncalibrated(edge, floats), classifier_of(manifest))
    return trace(edge)


def classifier_of(manifest: Manifest) -> Classifier:
    """Look up how an int8 package stores its classifier: in its own recipe, or its target's."""
    try:
        return parse_recipe(manifest.recipe).quantization.classifier
    except SepViTError:  # of another version of sepvit-edge
        return find_recipe(manifest.target, "int8").quantization.classifier


def work_by_part(program: ExportedProgram, precision: Precision) -> dict[str, Work]:
    """Count each part's work, in order of execution."""
    macs = macs_by_operation(program)
    weights = {*program.graph_signature.inputs_to_parameters}
    weights |= {*program.graph_signature.inputs_to_buffers}
    parts: dict[str, int] = {}
    read: dict[str, dict[Node, int]] = {}
    written: dict[str, dict[Node, int]] = {}
    for node in program.graph.nodes:
        part = part_of(node.name) if node.op == "call_function" else None
        if part is None:
            continue
        parts[part] = parts.get(part, 0) + macs.get(node.name, 0)
        for source in node.all_input_nodes:
            if source.name in weights:
                size = _WEIGHT_BYTES[precision]
            elif part_of(source.name) != part or source.op != "call_function":
                size = _ACTIVATION_BYTES
                owner = part_of(source.name) if source.op == "call_function" else None
                if owner is not None:
                    written.setdefault(owner, {})[source] = _bytes(source, size)
            else:
                continue
            read.setdefault(part, {})[source] = _bytes(source, size)
    return {
        part: Work(total, (sum(read[part].values()) + sum(written.get(part, {}).values())) / 1e6)
        for part, total in parts.items()
    }


def _bytes(node: Node, size: int) -> int:
    value = node.meta["val"]
    return math.prod(value.shape) * min(size, value.element_size())


def attribute(operations: Operations, work: dict[str, Work]) -> Attribution:
    """Sum operations by part, and compare the sum with the whole.

    Parameters
    ----------
    operations : Operations
        Operations as the runner wrote them, with the time of the whole beside them.
    work : dict
        Work by part, from `work_by_part`.
    """
    # A profiler costs time in each run; shares of the run that it saw are those of one without it.
    stretch = 1.0
    if operations.whole_us and operations.observed_us:
        stretch = operations.observed_us / operations.whole_us
    overhead = next((o.mean_us for o in operations.items if o.kind == OVERHEAD), 0.0)
    items = [item for item in operations.items if item.kind != OVERHEAD]
    times: dict[str, float] = {}
    counts: Counter[str] = Counter()
    inserted = 0.0
    for item, part in zip(items, parts_of(items), strict=True):
        time = max(item.mean_us - overhead, 0.0) / stretch
        if part is None:
            inserted += time
        else:
            times[part] = times.get(part, 0.0) + time
            counts[part] += 1
    whole = operations.whole_us or sum(item.mean_us for item in items)
    unattributed = whole - sum(times.values())
    idle = Work(0, 0.0)
    return Attribution(
        method=operations.method,
        whole_us=whole,
        unattributed_us=unattributed,
        inserted_us=inserted,
        between_us=unattributed - inserted if operations.observed_us else None,
        profiler_share=stretch - 1 if operations.observed_us else None,
        parts=[
            AttributedPart(
                part=part,
                time_us=time,
                operations=counts[part],
                macs=work.get(part, idle).macs,
                moved_mb=work.get(part, idle).moved_mb,
            )
            for part, time in times.items()
        ],
    )


def parts_of(items: list[Operation]) -> list[str | None]:
    """Return the part of each operation, in order of execution; None where it is not clear.

    An operation that a runtime inserted has a name of the runtime's. A change of layout belongs to
    its convolution, any other to its neighbours where both are of one part.
    """
    named = [part_of(item.name) for item in items]
    found: list[str | None] = []
    for index, (item, part) in enumerate(zip(items, named, strict=True)):
        if part is None:
            before = next((p for p in reversed(named[:index]) if p), None)
            after = next((p for p in named[index + 1 :] if p), None)
            if item.kind in _BEFORE:
                part = after
            elif item.kind in _AFTER or before == after:
                part = before
        found.append(part)
    return found
