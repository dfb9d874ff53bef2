"""The quantisation scheme of every runtime, defined here and nowhere else.

Every linear and convolution of the edge form computes in int8, except `FLOAT_LAYERS`:

- Weights: int8, symmetric, one scale per output channel, [-64, 64]. x86 CPUs without VNNI add pairs
  of products in 16 bits, and 255 * 64 * 2 is the most that fits: on [-127, 127] OpenVINO and ONNX
  Runtime are silently wrong there, by 7 dB for SepViT-Lite.
- Activations, before and behind: int8, symmetric, one static scale per tensor, all 256 levels
  [-128, 127], zero point 0. (255 levels cost OpenVINO's low-precision passes 8 dB.)
- Accumulators and biases: int32, whose scale is input scale times weight scale. Biases are rounded
  to it for every runtime, since those that compute with integers round them anyway.

Everything between stays float: addition, softmax, both products of attention, LayerNorm, GELU,
the mean over positions. Quantising additions and concatenations as well costs 17 dB.

A ReLU is a part of the layer in front of it: the rounding is behind it.

The last layers have int8 weights between float activations: a classifier has next to no MACs,
rounding its input would show in the logits directly, and on 256 levels the best two logits tie too
often.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (defines the operations below)
from torch.export import ExportedProgram

from ..config.recipe import Classifier
from ..errors import SepViTError
from ..model.dense import DenseModel
from ..model.edge import EdgeModel
from ..model.edge.dense.regions import graph_of, region_models
from ..model.edge.make import EdgeGraph, edge_model
from ..model.edge.weights import ConvReLU, LinearReLU
from ..model.graph import trace
from ..model.logits import as_tuple
from ..model.quantized import WEIGHT_LIMIT, Calibration, Quantization, QuantizedLayer, per_channel
from ..model.reference import SepViT
from .images import batches
from .interface import REFERENCE_BATCH, logits_in_batches

LAYER_SCHEME = "w8a8: int8, weights symmetric per output channel, activations symmetric per tensor"
ACTIVATION_RANGE = (-128, 127)
BIAS_RANGE = (-(2**31) + 1, 2**31 - 1)
CLASSIFIER = "head.classifier"
# With those of detectors: logits of classes and of masks, and deltas of boxes.
LAST_LAYERS = (
    *(CLASSIFIER, "head.classes", "head.boxes"),
    *("box_head.classes", "box_head.boxes", "mask_head.classifier"),
)
# The whole residual stream passes through these, so their rounding reaches everything after them:
# of 25 dB on glyphs they cost 4, with 4 % of SepViT-T's MACs and 0.6 % of its weights. (The other
# two patch embeddings would cost 10 % of the weights for less than 1 dB.)
FLOAT_LAYERS = ("stages.[01].patch_embedding.proj", "stages.*.cpe.proj")
FLOAT_REASON = "the whole residual stream passes through it"

_OPS = torch.ops.quantized_decomposed


def uncalibrated(edge: EdgeModel, float_layers: Mapping[str, str]) -> Quantization:
    """Quantise an edge model with placeholder scales, for latency measurement only."""
    layers = {
        name: uncalibrated_layer(layer, float_between=name in LAST_LAYERS)
        for name, layer in quantizable_layers(edge).items()
        if name not in float_layers
    }
    return Quantization(layers, float_layers, Calibration("none", 0, "", "none"))


def uncalibrated_layer(layer: nn.Linear | nn.Conv2d, float_between: bool = False) -> QuantizedLayer:
    """Quantise a layer with placeholder scales; with `float_between` its weights alone."""
    scale = weight_scales(layer.weight)
    scales = (None, None) if float_between else (1 / 127, 2 / 127)
    return QuantizedLayer(quantize_weight(layer.weight, scale), scale, *scales)


def quantizable_layers(edge: EdgeGraph) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return every linear and convolution of a graph by name, in the network's order."""
    return {
        name: module
        for name, module in edge.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def scheme_float(layers: Iterable[str]) -> dict[str, str]:
    """Return the layers that the scheme leaves in float, with the reason."""
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
        Names of all layers.
    patterns : iterable of str
        As for file names: ``stages.0.*`` or ``*.psa.*``; a part's name stands for its layers.

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


def weight_scales(weight: Tensor) -> Tensor:
    """Return the scale of each output channel: its largest weight becomes the largest integer."""
    largest = weight.detach().flatten(1).abs().amax(1)
    return largest.clamp(min=1e-8) / WEIGHT_LIMIT


def quantize_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """Round a weight to its integers, int8."""
    multiples = weight.detach() / per_channel(scale, weight)
    return multiples.round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).to(torch.int8)


def round_bias(bias: Tensor, weight_scale: Tensor, input_scale: float | None) -> Tensor:
    """Round a bias to what int32 accumulators can hold; float32, as it came."""
    if input_scale is None:
        return bias.detach()
    scale = weight_scale.detach() * input_scale
    return bias_integers(bias, scale) * scale


def bias_integers(bias: Tensor, scale: Tensor) -> Tensor:
    """Divide a bias by the accumulators' scale and round, in the dtype of the two."""
    return (bias.detach() / scale).round().clamp(*BIAS_RANGE)


class LayerFunction:
    """The function of a linear or convolution with its ReLU, without its parameters."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        self._relu = isinstance(layer, (LinearReLU, ConvReLU))
        self._conv: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            names = ("stride", "padding", "dilation", "groups")
            self._conv = {name: getattr(layer, name) for name in names}

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute with these parameters."""
        if self._conv is None:
            y = F.linear(x, weight, bias)
        else:
            y = F.conv2d(x, weight, bias, **self._conv)
        return F.relu(y) if self._relu else y


class Int8Layer(nn.Module):
    """A linear or convolution of the edge form with quantise and dequantise around it.

    In a traced graph this equals the result of torchao's `convert_pt2e` (a test compares them), and
    every runtime's compiler recognises it as one int8 operation. In float64 it computes exactly as
    integers would: in float32 some values near a half are rounded the other way.
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
        """Compute the layer; shapes as of the float layer."""
        weight: Tensor = self.weight
        if not self.float_weight and x.dtype == torch.float64:
            weight = weight * per_channel(self.weight_scale, weight)
        elif not self.float_weight:
            low, high = -WEIGHT_LIMIT, WEIGHT_LIMIT
            weight = _OPS.dequantize_per_channel(
                weight, self.weight_scale, self.zero_points, 0, low, high, torch.int8
            )
        y = self.function(_fake_quantize(x, self.input_scale), weight, self.bias)
        return _fake_quantize(y, self.output_scale)


def _fake_quantize(x: Tensor, scale: float | None) -> Tensor:
    if scale is None:
        return x
    if x.dtype == torch.float64:  # which the operations below do not take
        return (x / scale).round().clamp(*ACTIVATION_RANGE) * scale
    parameters = (scale, 0, *ACTIVATION_RANGE, torch.int8)
    integers = _OPS.quantize_per_tensor(x, *parameters)
    y: Tensor = _OPS.dequantize_per_tensor(integers, *parameters)
    return y


def apply_quantization(
    edge: EdgeGraph, quantization: Quantization, classifier: Classifier = "int8"
) -> None:
    """Put int8 layers into a graph, in place.

    Parameters
    ----------
    edge : EdgeModel or RegionModel
        Of any form.
    quantization : Quantization
        The layers; those of a model's other graphs are left.
    classifier : str
        ``"float"`` stores the classifier's weights as the float32 that its integers stand for.

    Raises
    ------
    SepViTError
        If a layer is missing or has another shape: the quantisation belongs to another model.
    """
    layers = quantizable_layers(edge)
    for name, quantized in quantization.layers.items():
        if graph_of(name) != edge.graph:
            continue
        layer = layers.get(name)
        if layer is None or layer.weight.shape[: quantized.weight.ndim] != quantized.weight.shape:
            raise SepViTError(f"the quantisation does not fit the model: {name}")
        # A linear is a 1 x 1 convolution in some forms.
        weight = quantized.weight.reshape(layer.weight.shape)
        quantized = replace(quantized, weight=weight)
        float_weight = name in LAST_LAYERS and classifier == "float"
        edge.set_submodule(name, Int8Layer(layer, quantized, float_weight))


@dataclass(frozen=True)
class LayerQuantization:
    """Int8 layers as exports use them; see `interface.ProgramQuantization`.

    Attributes
    ----------
    stored : Quantization
        Integers and scales, as a checkpoint stores them.
    classifier : str
        How an export stores the classifier's weights; see `apply_quantization`.
    """

    stored: Quantization
    classifier: Classifier = "int8"

    @property
    def scheme(self) -> str:
        """One line on the scheme."""
        return LAYER_SCHEME

    @property
    def trained(self) -> bool:
        """Whether the weights were trained with it."""
        return self.stored.trained

    @property
    def float_layers(self) -> Mapping[str, str]:
        """Layers left in float -> reason."""
        return self.stored.float_layers

    @property
    def calibration(self) -> Calibration:
        """Images that the scales of the activations come from."""
        return self.stored.calibration

    def program(self, edge: EdgeGraph) -> ExportedProgram:
        """Put the int8 layers into a graph, and trace it."""
        apply_quantization(edge, self.stored, self.classifier)
        return trace(edge)

    def outputs(self, model: DenseModel) -> Callable[[np.ndarray], list[np.ndarray]]:
        """Return the same as `reference` for a dense model: one array an output."""
        edge = edge_model(model)
        apply_quantization(edge, self.stored)
        edge.double()

        @torch.no_grad()
        def run(pixels: np.ndarray) -> list[np.ndarray]:
            images = [as_tuple(edge(x)) for x in torch.from_numpy(pixels).split(1)]
            return [torch.cat(parts).float().numpy() for parts in zip(*images, strict=True)]

        return run

    def heads(self, model: DenseModel) -> Callable[[str, np.ndarray], list[np.ndarray]]:
        """Return the same for the graphs that look at regions, as `reference_heads` does."""
        graphs = {graph.name: graph for graph in region_models(model)}
        for graph in graphs.values():
            apply_quantization(graph, self.stored)
            graph.double()

        @torch.no_grad()
        def run(name: str, regions: np.ndarray) -> list[np.ndarray]:
            size = len(graphs[name].example_input())
            pieces = (
                [x[:count].float().numpy() for x in as_tuple(graphs[name](piece.double()))]
                for piece, count in batches(regions, size)
            )
            return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

        return run

    def reference(self, model: SepViT) -> Callable[[np.ndarray], np.ndarray]:
        """Return the edge form with int8 layers, computed by torch in float64."""
        edge = EdgeModel(model, REFERENCE_BATCH)
        apply_quantization(edge, self.stored)
        return logits_in_batches(edge.double())
