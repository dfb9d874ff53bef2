"""The second scheme: every operation in integers, for units that compute nothing else.

The first scheme (`scheme.py`) quantises linears and convolutions, and leaves everything between
them in float. An NPU without floating point (Ethos-U) needs the rest too:

- Weights and biases: as in the first scheme, so that the weights of a quantisation-aware checkpoint
  keep their integers.
- Activations: int8, one scale and zero point per tensor, all 256 levels. int16 for the statistics
  of norms and softmax was tried: 0.6 dB more, and Vela's tables for it interpolate.
- Logits: int16, symmetric: on 256 levels the best two of them tie too often.
- Operations that only move values (views, permutations, slices, concatenations, the maximum) keep
  the scale and zero point of their input, so that they cost no rounding.

The edge form has to be written in single operations for that (principle 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

from ..data.sample import Dataset
from ..errors import SepViTError
from ..model.edge import EdgeModel, Form
from ..model.edge.make import EdgeGraph
from ..model.graph import trace
from ..model.quantized import Calibration
from ..model.reference import SepViT
from .calibration import CALIBRATION_IMAGES
from .exact import run_exactly
from .full_program import LAYERS, MOVES, constants_of, quantized_program, tensor_groups
from .images import batches, calibration_pixels
from .interface import REFERENCE_BATCH, logits_in_batches
from .qparams import QParams, ValueHistogram

FULL_SCHEME = (
    "full int8: every operation; weights symmetric per output channel, activations affine per "
    "tensor, logits int16"
)
_ATEN = torch.ops.aten
_BATCH = 8
# Norms and softmax as one operation, inside which nothing can be quantised.
_WHOLE = {
    _ATEN.native_layer_norm.default,
    _ATEN.layer_norm.default,
    _ATEN._softmax.default,
    _ATEN.softmax.int,
}
# exp of less than this is nearer to 0 than to its result's scale.
_EXP_FROM = -math.log(512)


@dataclass(frozen=True)
class FullQuantization:
    """Quantisation parameters of all of a model's tensors; see `interface.ProgramQuantization`.

    Attributes
    ----------
    form : Form
        The edge form that they belong to.
    qparams : dict
        Parameters by the name of the traced operation that computes the tensor, or of the constant.
    input_scales : dict
        Scale of the input of each linear and convolution, by the operation's name.
    calibration : Calibration
        Images that they were measured on.
    """

    form: Form
    qparams: Mapping[str, QParams]
    input_scales: Mapping[str, float]
    calibration: Calibration
    scheme: str = FULL_SCHEME
    trained: bool = False
    float_layers: Mapping[str, str] = field(default_factory=dict)

    def program(self, edge: EdgeGraph) -> ExportedProgram:
        """Quantise every tensor of an edge model, and trace it.

        Raises
        ------
        SepViTError
            If the parameters belong to another model or another edge form.
        """
        return quantized_program(edge, self.qparams, self.input_scales)

    def reference(self, model: SepViT) -> Callable[[np.ndarray], np.ndarray]:
        """Return the program with every operation in integers, computed by torch in float64."""
        program = self.program(EdgeModel(model, REFERENCE_BATCH, self.form))
        return logits_in_batches(lambda batch: run_exactly(program, batch)[0])


def calibrate_full(
    model: SepViT,
    data: Dataset,
    form: Form,
    *,
    images: int = CALIBRATION_IMAGES,
    advance: Callable[[int], None] = lambda _: None,
) -> FullQuantization:
    """Measure the quantisation parameters of every tensor on images.

    Parameters
    ----------
    model : SepViT
        In evaluation mode.
    data : Dataset
        Typical images; not those that accuracy is measured on.
    form : Form
        The edge form to be quantised.
    images : int
        Number of them to use, evenly over the set.
    advance : callable
        Called with the number of images done.

    Raises
    ------
    SepViTError
        If the data has no images, or the edge form keeps norms or softmax whole.
    """
    program = trace(EdgeModel(model, _BATCH, form))
    whole = any(node.target in _WHOLE for node in program.graph.nodes)
    if whole or form.pixels.dtype != "uint8":
        raise SepViTError(
            "full int8 quantises uint8 pixels and single operations, not the edge form "
            f'"{form.name}": the recipe needs [edge] form = "ethos-u"'
        )
    pixels, digest = calibration_pixels(model, data, images)
    qparams, scales = _observe(program, pixels, advance)
    facts = Calibration(data.name, len(pixels), digest, "mse")
    return FullQuantization(form, qparams, scales, facts)


@torch.no_grad()
def _observe(
    program: ExportedProgram, pixels: np.ndarray, advance: Callable[[int], None]
) -> tuple[dict[str, QParams], dict[str, float]]:
    """Run the float program on all pixels; tensors with one number share a histogram."""
    groups = tensor_groups(program)
    histograms = {group: ValueHistogram() for group in groups.values()}

    class Observer(Interpreter):
        def run_node(self, node: Node) -> Any:
            value = super().run_node(node)
            if node in groups and node.target not in MOVES:
                histograms[groups[node]].add(value)
            return value

    observer = Observer(program.graph_module)
    constants = list(constants_of(program).values())
    for batch, count in batches(pixels, _BATCH):
        observer.run(*constants, batch)
        advance(count)
    by_group: dict[int, QParams] = {}
    for group, histogram in histograms.items():
        members = [node for node, other in groups.items() if other == group]
        readers = {user.target for node in members for user in node.users}
        if any(node.name == program.graph_signature.user_outputs[0] for node in members):
            by_group[group] = QParams.between(histogram.low, histogram.high, 16)
        elif _ATEN.exp.default in readers:
            by_group[group] = QParams.between(max(histogram.low, _EXP_FROM), 0.0)
        else:
            by_group[group] = histogram.qparams()
    layers = [node for node in program.graph.nodes if node.target in LAYERS]
    return (
        {n.name: by_group[g] for n, g in groups.items() if n.target not in MOVES},
        {n.name: by_group[groups[n.args[0]]].scale for n in layers},
    )
