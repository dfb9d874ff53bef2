"""Quantisation-aware training: the edge form with the scheme's rounding in its forward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ..checkpoints.quantized import quantized_model
from ..data.sample import Dataset
from ..errors import SepViTError
from ..model.edge import FORMS, EdgeModel
from ..model.quantized import WEIGHT_LIMIT, Quantization, QuantizedLayer
from ..model.reference import SepViT
from ..quantization.calibration import calibrate
from ..quantization.scheme import (
    ACTIVATION_RANGE,
    LayerFunction,
    quantizable_layers,
    quantize_weight,
    round_bias,
    weight_scales,
)

if TYPE_CHECKING:
    from .recipe import TrainingRecipe


def rounded(values: Tensor) -> Tensor:
    """Round to integers; gradients pass as if the values were not rounded."""
    return values + (values.round() - values).detach()


def round_parameters(
    weight: Tensor, bias: Tensor, input_scale: float | None
) -> tuple[Tensor, Tensor]:
    """Quantise and dequantise a layer's weight and bias; gradients pass.

    Parameters
    ----------
    weight, bias : Tensor
        Parameters of a linear or a convolution; scales are chosen from their present values.
    input_scale : float, optional
        Scale of the input; None if it stays float.

    Returns
    -------
    tuple of Tensor
        Weight and bias.
    """
    scale = weight_scales(weight)
    zeros = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
    weight = torch.fake_quantize_per_channel_affine(
        weight, scale, zeros, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT
    )
    return weight, bias + (round_bias(bias, scale, input_scale) - bias).detach()


class FakeInt8Layer(nn.Module):
    """A layer that computes with rounded weights and activations, and can be trained.

    Gradients pass through the rounding unchanged, and are zero where a value is clipped. Scales of
    activations start as calibrated and are learnt, as logarithms (LSQ, arXiv 1902.08153, with the
    same gradient); those of weights follow the weights.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, quantized: QuantizedLayer) -> None:
        super().__init__()
        self.function = LayerFunction(layer)
        self.weight = nn.Parameter(layer.weight.detach().clone())
        assert layer.bias is not None
        self.bias = nn.Parameter(layer.bias.detach().clone())
        self.input_log_scale = _log(quantized.input_scale)
        self.output_log_scale = _log(quantized.output_scale)
        self.rounding = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the layer computes, with rounding; shapes are the layer's."""
        log_scale = self.input_log_scale
        input_scale = None if log_scale is None else log_scale.exp().item()
        weight, bias = round_parameters(self.weight, self.bias, input_scale)
        y = self.function(self._rounded(x, self.input_log_scale), weight, bias)
        return self._rounded(y, self.output_log_scale)

    def _rounded(self, x: Tensor, log_scale: Tensor | None) -> Tensor:
        if log_scale is None or not self.rounding:
            return x
        scale = log_scale.exp()
        return rounded((x.float() / scale).clamp(*ACTIVATION_RANGE)) * scale

    def quantized(self) -> QuantizedLayer:
        """Return the layer's int8 weight and its scales."""
        scale = weight_scales(self.weight)
        weight = quantize_weight(self.weight, scale)
        scales = (
            None if log_scale is None else log_scale.exp().item()
            for log_scale in (self.input_log_scale, self.output_log_scale)
        )
        return QuantizedLayer(weight, scale, *scales)


def _share_input(attention: nn.Module) -> None:
    """Let q, k and v learn one input scale: they share an input, which is rounded once."""
    readers = [layer for layer in attention.children() if isinstance(layer, FakeInt8Layer)]
    for reader in readers[1:]:
        reader.input_log_scale = readers[0].input_log_scale


def _log(scale: float | None) -> nn.Parameter | None:
    return None if scale is None else nn.Parameter(torch.tensor(math.log(scale)))


def make_trainable(edge: EdgeModel) -> None:
    """Make an edge model's weights trainable, in place.

    Window tokens, and the norm before each window that has one, stay fixed: their product is a
    constant of the edge form.
    """
    edge.requires_grad_(True)
    for _, block in edge.blocks():
        if block.dsa.window_tokens is not None:
            block.dsa.norm.requires_grad_(False)


def with_batch(edge: EdgeModel, model: SepViT, batch: int) -> EdgeModel:
    """Make an edge model for another batch size of the same layers.

    Parameters
    ----------
    edge : EdgeModel
        Every module with parameters is shared with the result, not copied.
    model : SepViT
        The reference that it was made of.
    batch : int
        Images a call of the result.
    """
    twin = EdgeModel(model, batch, edge.form)
    for name, module in edge.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            twin.set_submodule(name, module)
    return twin.to(next(edge.parameters()).device)


class EdgeTrainee(nn.Module):
    """An edge model under training, at the image size that its scales were calibrated for."""

    def __init__(self, model: SepViT, edge: EdgeModel) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple, so that it is not trained
        self.edge = edge
        make_trainable(edge)
        rule = model.config.preprocessing
        for name, values in (("mean", rule.mean), ("std", rule.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1) * 255, False)

    def set_image_size(self, image_size: int) -> None:
        """Accept the size that the scales were calibrated for.

        Raises
        ------
        SepViTError
            For any other.
        """
        if image_size != self.edge.config.image_size:
            raise SepViTError(
                f"this model is quantised for {self.edge.config.image_size} pixels, not "
                f"{image_size}"
            )

    def pixels(self, x: Tensor) -> Tensor:
        """Undo the normalisation: return values 0-255, of the same shape."""
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        return x.float() * std + mean


def refuse_sizes(recipe: TrainingRecipe) -> None:
    """Refuse a recipe with more than one image size."""
    if len(recipe.resolution_schedule) > 1:
        raise SepViTError(
            "scales of activations fit one image size: give one by --resolution-schedule"
        )


class QuantizedTrainee(EdgeTrainee):
    """A quantisation-aware model under training; see `sepvit_edge.training.loop.Trainee`.

    Parameters
    ----------
    model : SepViT
        Model trained in float.
    quantization : Quantization
        Starting point: scales of the activations, layers left in float.
    batch : int
        Images per step.
    """

    def __init__(self, model: SepViT, quantization: Quantization, batch: int) -> None:
        edge = EdgeModel(model, batch, FORMS["rows-float"])
        for name, layer in quantizable_layers(edge).items():
            if name in quantization.layers:
                fake = FakeInt8Layer(layer, quantization.layers[name])
                edge.set_submodule(name, fake)
        for _, block in edge.blocks():
            for attention in filter(None, (block.dsa, block.psa)):
                _share_input(attention)
        super().__init__(model, edge)
        self.rounding = "--qat"
        self._quantization = quantization
        self._others: dict[int, EdgeModel] = {}  # by batch; not parts of what is trained

    @classmethod
    def calibrated(
        cls,
        model: SepViT,
        recipe: TrainingRecipe,
        data: Dataset,
        keep_float: Sequence[str] = (),
    ) -> QuantizedTrainee:
        """Start from post-training quantisation.

        Raises
        ------
        SepViTError
            If the recipe has more than one image size.
        """
        refuse_sizes(recipe)
        start = calibrate(model.eval(), data, keep_float=keep_float)
        return cls(model, start, recipe.batch)

    @contextmanager
    def unrounded(self) -> Iterator[None]:
        """Keep activations in float within the block: neither rounded nor clipped."""
        layers = [module for module in self.modules() if isinstance(module, FakeInt8Layer)]
        for layer in layers:
            layer.rounding = False
        try:
            yield
        finally:
            for layer in layers:
                layer.rounding = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, classes) of normalised images (B, 3, size, size)."""
        logits: Tensor = self._edge_for(len(x))(self.pixels(x))
        return logits

    def _edge_for(self, batch: int) -> EdgeModel:
        """Return the edge model for a batch size; all of them share their trained layers."""
        if batch == self.edge.batch:
            return self.edge
        if batch not in self._others:
            self._others[batch] = with_batch(self.edge, self._model[0], batch)
        return self._others[batch]

    def finished(self) -> SepViT:
        """Return the reference model with the weights that the integers represent.

        Its `quantization` holds the integers and scales.
        """
        layers = {
            name: module.quantized()
            for name, module in self.edge.named_modules()
            if isinstance(module, FakeInt8Layer)
        }
        start = self._quantization
        quantization = Quantization(layers, start.float_layers, start.calibration, trained=True)
        model = self._model[0]
        twin = EdgeModel(model, self.edge.batch, self.edge.form)
        state = self.edge.state_dict()
        floats = {key: value for key, value in state.items() if not key.endswith("_log_scale")}
        floats |= {f"{name}.weight": layer.dequantized() for name, layer in layers.items()}
        twin.load_state_dict(floats)
        return quantized_model(model, twin, quantization)
