"""Quantisation-aware training with every operation in int8 (`quantization/full_int8.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

from ..checkpoints.quantized import quantized_model
from ..data.sample import Dataset
from ..model.edge import FORMS, EdgeModel, heads
from ..model.edge.norms import ProductSoftmax, TableNorm
from ..model.graph import trace
from ..model.quantized import QuantizedLayer
from ..model.reference import SepViT
from ..quantization.calibration import calibrate
from ..quantization.exact import round_half_up
from ..quantization.full_int8 import FullQuantization, calibrate_full
from ..quantization.full_program import LAYERS, constants_of
from ..quantization.qparams import QParams, accumulator_qparams, row_qparams
from ..quantization.scheme import quantizable_layers, quantize_weight, weight_scales
from .quantized import EdgeTrainee, refuse_sizes, round_parameters

if TYPE_CHECKING:
    from .recipe import TrainingRecipe

# Single operations, and the layers that every other form has under the same names.
FORM = replace(
    FORMS["rows"],
    name="rows-integer",
    norm=TableNorm,
    softmax=ProductSoftmax,
    head=heads.Head,
)
_TINY = 1e-12


class FullQuantizedTrainee(EdgeTrainee):
    """A model under training in full int8; see `sepvit_edge.training.loop.Trainee`.

    Weights adapt to the rounding. Scales of activations stay as calibrated: an export calibrates
    again, for the form that its unit needs.

    Parameters
    ----------
    model : SepViT
        Model trained in float.
    quantization : FullQuantization
        Scales of `FORM`.
    data : Dataset
        Calibration images, for the scales of the trained weights that other runtimes need.
    batch : int
        Images per step.
    """

    rounding = "--qat --scheme full"

    def __init__(
        self, model: SepViT, quantization: FullQuantization, data: Dataset, batch: int
    ) -> None:
        super().__init__(model, EdgeModel(model, batch, quantization.form))
        self._quantization, self._data = quantization, data
        self._programs: dict[int, ExportedProgram] = {}
        self._rounding = True

    @classmethod
    def calibrated(
        cls, model: SepViT, recipe: TrainingRecipe, data: Dataset
    ) -> FullQuantizedTrainee:
        """Start from post-training quantisation.

        Raises
        ------
        SepViTError
            If the recipe has more than one image size.
        """
        refuse_sizes(recipe)
        start = calibrate_full(model.eval(), data, FORM)
        return cls(model, start, data, recipe.batch)

    @contextmanager
    def unrounded(self) -> Iterator[None]:
        """Keep everything but the weights in float within the block."""
        self._rounding = False
        try:
            yield
        finally:
            self._rounding = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, classes) of normalised images (B, 3, size, size)."""
        program = self._programs.get(len(x))
        if program is None:
            edge = EdgeModel(self._model[0], len(x), self._quantization.form)
            program = self._programs[len(x)] = trace(edge)
        pixels = self.pixels(x).round().clamp(0, 255).to(torch.uint8)
        constants = constants_of(program)
        own = dict(self.edge.named_parameters())
        for placeholder, name in program.graph_signature.inputs_to_parameters.items():
            constants[placeholder] = own[name]
        for node in program.graph.nodes:
            if node.target in LAYERS:
                _round_layer(node, constants, program, self._quantization.input_scales[node.name])
        values = [value.to(x) for value in constants.values()]
        qparams = self._quantization.qparams if self._rounding else {}
        logits: Tensor
        (logits,) = _FakeQuantized(program, qparams).run(
            *values, pixels.permute(0, 2, 3, 1).contiguous()
        )
        return logits

    def finished(self) -> SepViT:
        """Return the reference model with the weights that the integers represent.

        Its `quantization` is of the scheme for layers, with the same integers.
        """
        twin = EdgeModel(self._model[0], self.edge.batch, self.edge.form)
        twin.load_state_dict(self.edge.state_dict())
        for layer in quantizable_layers(twin).values():
            scale = weight_scales(layer.weight)
            integers = quantize_weight(layer.weight, scale)
            layer.weight.data = QuantizedLayer(integers, scale, None, None).dequantized()
        result = quantized_model(self._model[0], twin)
        result.quantization = replace(calibrate(result, self._data), trained=True)
        return result


class _FakeQuantized(Interpreter):
    """Interpreter of a traced program that rounds tensors to their scales; gradients pass."""

    def __init__(self, program: ExportedProgram, qparams: Mapping[str, QParams]) -> None:
        super().__init__(program.graph_module)
        self._qparams = qparams

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is torch.ops.aten.rsqrt.default:
            # A small variance is rounded to 0: its result is clipped, its gradient is not.
            args = (args[0].clamp(min=_TINY),)
        return super().call_function(target, args, kwargs)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        qparams = self._qparams.get(n.name)
        return value if qparams is None else _straight_through(value, qparams)


def _straight_through(x: Tensor, qparams: QParams) -> Tensor:
    """Quantise and dequantise, halves up as the units do (`quantization.exact`); gradients pass."""
    scale, zero_point, low, high, _ = qparams.arguments
    integers = (x / scale).clamp(low - zero_point, high - zero_point)
    return (integers + (round_half_up(integers) - integers).detach()) * scale


def _round_layer(
    node: Node, constants: dict[str, Tensor], program: ExportedProgram, input_scale: float
) -> None:
    """Replace weight and bias of a linear or convolution by their rounded values."""
    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
    assert isinstance(weight, Node)
    values = constants[weight.name]
    if weight.name in program.graph_signature.inputs_to_parameters:
        assert isinstance(bias, Node)
        constants[weight.name], constants[bias.name] = round_parameters(
            values, constants[bias.name], input_scale
        )
        return
    row = row_qparams(values)
    constants[weight.name] = _straight_through(values, row)
    if isinstance(bias, Node):
        wide = accumulator_qparams(input_scale, row.scale)
        constants[bias.name] = _straight_through(constants[bias.name], wide)
