"""The quantisation scheme: one for every runtime, stated here and nowhere else.

Every linear and convolution of the edge form computes in int8, except `FLOAT_LAYERS`:

- Weights: int8, symmetric, one scale an output channel, [-64, 64]. x86 CPUs without VNNI add pairs
  of products in 16 bits, and 255 * 64 * 2 is the most that fits: on [-127, 127] OpenVINO and ONNX
  Runtime are silently wrong there, by 7 dB for SepViT-Lite.
- Activations, before and behind: int8, symmetric, one static scale a tensor, all 256 levels
  [-128, 127], zero point 0. (255 levels cost OpenVINO's low-precision passes 8 dB.)
- Accumulators and biases: int32, whose scale is input scale times weight scale. Biases are rounded
  to it for every runtime, since those that compute with integers round them anyway.

Everything between stays float: addition, softmax, both products of attention, LayerNorm, GELU,
the mean over positions. Quantising additions and concatenations as well costs 17 dB.

The classifier has int8 weights between float activations: it has next to no MACs, what is rounded
before it goes straight into the logits, and on 256 levels the best two logits tie too often.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (defines the operations below)

from ..errors import SepViTError
from ..model.edge import EdgeModel

SCHEME = "w8a8: int8, weights symmetric per output channel, activations symmetric per tensor"
ACTIVATION_RANGE = (-128, 127)
WEIGHT_BITS = 8
WEIGHT_LIMIT = 64
BIAS_RANGE = (-(2**31) + 1, 2**31 - 1)
CLASSIFIER = "head.classifier"
# The whole residual stream passes through these, so what is rounded in them is in all that follows:
# of 25 dB on glyphs they cost 4, with 4 % of SepViT-T's MACs and 0.6 % of its weights. (The other
# two patch embeddings would cost 10 % of the weights for less than 1 dB.)
FLOAT_LAYERS = ("stages.[01].patch_embedding.proj", "stages.*.cpe.proj")
FLOAT_REASON = "the whole residual stream passes through it"

_OPS = torch.ops.quantized_decomposed


@dataclass(frozen=True)
class QuantizedLayer:
    """What makes a layer of the edge form an int8 one.

    Attributes
    ----------
    weight : Tensor
        int8, of the shape of the edge form's weight.
    weight_scale : Tensor
        float32 (output channels,).
    input_scale, output_scale : float or None
        Of the activations before and behind it; None where they stay float.

    Raises
    ------
    SepViTError
        If an integer is beyond the limit.
    """

    weight: Tensor
    weight_scale: Tensor
    input_scale: float | None
    output_scale: float | None

    def __post_init__(self) -> None:
        largest = int(self.weight.to(torch.int16).abs().max())
        if largest > WEIGHT_LIMIT:
            raise SepViTError(
                f"the checkpoint has an int8 weight of {largest}, and the scheme ends at "
                f"{WEIGHT_LIMIT}; quantise the float checkpoint again"
            )

    def dequantized(self) -> Tensor:
        """Return the float32 weight that the integers stand for."""
        return self.weight.float() * _per_channel(self.weight_scale, self.weight)


@dataclass(frozen=True)
class Calibration:
    """What the activations' scales were measured on.

    Attributes
    ----------
    data : str
        Name of the data.
    images : int
        How many.
    sha256 : str
        Over their preprocessed pixels.
    method : str
        ``"mse"``, ``"percentile"`` or ``"min-max"``.
    """

    data: str
    images: int
    sha256: str
    method: str


@dataclass(frozen=True)
class Quantization:
    """The int8 layers of a model, and why the others are float.

    Attributes
    ----------
    layers : dict
        By the edge form's module names, as ``stages.2.blocks.4.psa.q``.
    float_layers : dict
        Layer -> reason.
    calibration : Calibration
        Where the scales of the activations come from.
    trained : bool
        Whether the weights were trained with this quantisation in place.
    """

    layers: Mapping[str, QuantizedLayer]
    float_layers: Mapping[str, str]
    calibration: Calibration
    trained: bool = False
    scheme: ClassVar[str] = SCHEME
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for name, layer in sorted(self.layers.items()):
            scales = f"{layer.input_scale!r} {layer.output_scale!r}"
            digest.update(f"{name} {tuple(layer.weight.shape)} {scales}\n".encode())
            digest.update(layer.weight.contiguous().numpy().data)
            digest.update(layer.weight_scale.contiguous().numpy().data)
        object.__setattr__(self, "sha256", digest.hexdigest())


def uncalibrated(edge: EdgeModel, float_layers: Mapping[str, str]) -> Quantization:
    """Quantise an edge model on scales that nobody measured: for times, not for answers."""
    layers = {}
    for name, layer in quantizable_layers(edge).items():
        if name not in float_layers:
            scale = weight_scales(layer.weight)
            integers = quantize_weight(layer.weight, scale)
            scales = (None, None) if name == CLASSIFIER else (1 / 127, 2 / 127)
            layers[name] = QuantizedLayer(integers, scale, *scales)
    return Quantization(layers, float_layers, Calibration("none", 0, "", "none"))


def quantizable_layers(edge: EdgeModel) -> dict[str, nn.Linear | nn.Conv2d]:
    """Every linear and convolution of an edge model, by name, in the order of the network."""
    return {
        name: module
        for name, module in edge.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def scheme_float(layers: Iterable[str]) -> dict[str, str]:
    """Layers that the scheme leaves in float, with the reason."""
    return {
        name: FLOAT_REASON
        for name in layers
        if any(fnmatch.fnmatch(name, pattern) for pattern in FLOAT_LAYERS)
    }


def choose_float(layers: Iterable[str], patterns: Iterable[str]) -> dict[str, str]:
    """Match the user's patterns against the layers' names.

    Parameters
    ----------
    layers : iterable of str
        All of them.
    patterns : iterable of str
        As for file names: ``stages.0.*`` or ``*.psa.*``; a part's name stands for all in it.

    Returns
    -------
    dict
        Layer -> reason.

    Raises
    ------
    SepViTError
        If a pattern matches nothing.
    """
    names = list(layers)
    found: dict[str, str] = {}
    for pattern in patterns:
        matches = [n for n in names if fnmatch.fnmatch(n, pattern) or n.startswith(pattern + ".")]
        if not matches:
            raise SepViTError(
                f"--keep-float {pattern} matches no layer; layers are named as {names[0]}, "
                f"{names[len(names) // 2]}, {names[-1]}"
            )
        found |= dict.fromkeys(matches, f"asked for: {pattern}")
    return found


def weight_range(bits: int = WEIGHT_BITS) -> int:
    """Largest integer of a weight."""
    return min(WEIGHT_LIMIT, int(2 ** (bits - 1) - 1))


def weight_scales(weight: Tensor, bits: int = WEIGHT_BITS) -> Tensor:
    """Scale of each output channel: its largest weight becomes the largest integer."""
    largest = weight.detach().flatten(1).abs().amax(1)
    return largest.clamp(min=1e-8) / weight_range(bits)


def quantize_weight(weight: Tensor, scale: Tensor, bits: int = WEIGHT_BITS) -> Tensor:
    """Round a weight to its integers, int8."""
    limit = weight_range(bits)
    steps = weight.detach() / _per_channel(scale, weight)
    return steps.round().clamp(-limit, limit).to(torch.int8)


def round_bias(bias: Tensor, weight_scale: Tensor, input_scale: float | None) -> Tensor:
    """Round a bias to the int32 grid of the accumulators; float32, as it came."""
    if input_scale is None:
        return bias.detach()
    step = weight_scale.detach() * input_scale
    return (bias.detach() / step).round().clamp(*BIAS_RANGE) * step


def _per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.reshape(-1, *(1,) * (weight.ndim - 1))


class LayerFunction:
    """What a linear or convolution computes, without its parameters."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        self._conv: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            names = ("stride", "padding", "dilation", "groups")
            self._conv = {name: getattr(layer, name) for name in names}

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute with these parameters."""
        if self._conv is None:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, **self._conv)


class Int8Layer(nn.Module):
    """A linear or convolution of the edge form with quantise and dequantise around it.

    In a traced graph this is what torchao's `convert_pt2e` makes (a test compares them), and what
    every runtime's compiler recognises as one int8 operation. With float64 it computes what exact
    integers would: in float32 some of what is nearly half a step is rounded the other way.
    """

    def __init__(
        self, layer: nn.Linear | nn.Conv2d, quantized: QuantizedLayer, float_weight: bool = False
    ) -> None:
        super().__init__()
        self.function = LayerFunction(layer)
        assert layer.bias is not None
        self.bias = nn.Buffer(round_bias(layer.bias, quantized.weight_scale, quantized.input_scale))
        self.float_weight = float_weight
        if float_weight:
            self.weight = nn.Buffer(quantized.dequantized())
        else:
            self.weight = nn.Buffer(quantized.weight)
            self.weight_scale = nn.Buffer(quantized.weight_scale)
            self.zero_points = nn.Buffer(torch.zeros(len(quantized.weight), dtype=torch.int64))
        self.input_scale, self.output_scale = quantized.input_scale, quantized.output_scale

    def forward(self, x: Tensor) -> Tensor:
        """Of the shapes of the layer."""
        weight: Tensor = self.weight
        if not self.float_weight and x.dtype == torch.float64:
            weight = weight * _per_channel(self.weight_scale, weight)
        elif not self.float_weight:
            grid = (0, -weight_range(), weight_range(), torch.int8)
            weight = _OPS.dequantize_per_channel(weight, self.weight_scale, self.zero_points, *grid)
        y = self.function(_on_grid(x, self.input_scale), weight, self.bias)
        return _on_grid(y, self.output_scale)


def _on_grid(x: Tensor, scale: float | None) -> Tensor:
    if scale is None:
        return x
    if x.dtype == torch.float64:  # which the operations below do not take
        return (x / scale).round().clamp(*ACTIVATION_RANGE) * scale
    grid = (scale, 0, *ACTIVATION_RANGE, torch.int8)
    y: Tensor = _OPS.dequantize_per_tensor(_OPS.quantize_per_tensor(x, *grid), *grid)
    return y


def apply_quantization(edge: EdgeModel, quantization: Quantization) -> None:
    """Put int8 layers into an edge model, in place.

    Raises
    ------
    SepViTError
        If a layer is missing or has another shape: the quantisation belongs to another model.
    """
    layers = quantizable_layers(edge)
    for name, quantized in quantization.layers.items():
        layer = layers.get(name)
        if layer is None or layer.weight.shape[: quantized.weight.ndim] != quantized.weight.shape:
            raise SepViTError(f"the quantisation does not fit the model: {name}")
        # A linear is a 1 x 1 convolution in some forms.
        weight = quantized.weight.reshape(layer.weight.shape)
        quantized = replace(quantized, weight=weight)
        float_weight = name == CLASSIFIER and edge.options.classifier == "float"
        edge.set_submodule(name, Int8Layer(layer, quantized, float_weight))
