"""The second scheme: every operation in integers, for units that compute nothing else.

The first scheme (`scheme.py`) quantises linears and convolutions; what lies between stays float.
An NPU without floating point (Ethos-U) needs the rest too:

- Weights and biases: as in the first scheme, so that the weights of a quantisation-aware checkpoint
  keep their integers.
- Activations: int8, one scale and zero point a tensor, all 256 levels. int16 for the statistics of
  norms and softmax was tried: 0.6 dB more, and Vela's tables for it interpolate.
- Logits: int16, symmetric: on 256 levels the best two of them tie too often.
- What only moves values (views, permutations, slices, concatenations, the maximum) keeps the grid
  of what it moves, so that it costs no rounding.

The edge form has to be written in single operations for that (principle 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

from ..data.sample import Dataset
from ..errors import SepViTError
from ..model.edge import EdgeModel, EdgeOptions
from ..model.graph import trace
from ..model.reference import SepViT
from .calibration import CALIBRATION_IMAGES, batches, calibration_pixels
from .scheme import (
    Calibration,
    LayerFunction,
    quantizable_layers,
    quantize_weight,
    weight_range,
    weight_scales,
)

SCHEME = (
    "full int8: every operation; weights symmetric per output channel, activations affine per "
    "tensor, logits int16"
)
_ATEN = torch.ops.aten
_OPS = torch.ops.quantized_decomposed
_BATCH = 8
_BINS = 4096
# Operations that give back values they were given.
_MOVES = {
    _ATEN.view.default,
    _ATEN.permute.default,
    _ATEN.slice.Tensor,
    _ATEN.cat.default,
    _ATEN.clone.default,
    _ATEN.amax.default,
}
# Products with a constant: the model's layers, and rows of ones or 1 / C in place of sums.
LAYERS = frozenset({_ATEN.linear.default, _ATEN.convolution.default})
# exp of less than this is nearer to 0 than to the first step of its result's grid.
_EXP_FROM = -math.log(512)
_DTYPES = {16: torch.int16, 32: torch.int32}


@dataclass(frozen=True)
class Grid:
    """The integers that stand for a tensor: ``value = scale * (integer - zero_point)``."""

    scale: float
    zero_point: int
    bits: int = 8

    @classmethod
    def between(cls, low: float, high: float, bits: int = 8) -> Grid:
        """Make the grid of a range; zero is always on it, since padding is zero."""
        low, high = min(low, 0.0), max(high, 0.0, low + 1e-6)
        if bits == 16:
            return cls(_nearby(max(-low, high) / 32767), 0, 16)
        scale = _nearby((high - low) / 255)
        return cls(scale, round(-128 - low / scale))

    @property
    def arguments(self) -> tuple[float, int, int, int, torch.dtype]:
        """What `quantize_per_tensor` takes behind the tensor."""
        if self.bits == 8:
            return self.scale, self.zero_point, -128, 127, torch.int8
        limit = 2 ** (self.bits - 1) - 1
        return self.scale, self.zero_point, -limit, limit, _DTYPES[self.bits]

    def integers(self, values: Tensor) -> Tensor:
        """Quantise a constant."""
        integers: Tensor = _OPS.quantize_per_tensor(values, *self.arguments)
        return integers


def _nearby(scale: float) -> float:
    """Round to one of 2**11 values an octave.

    CPUs measure alike but for a float32's last bits, and packages should not tell which it was.
    The values are a geometric series, since ratios of numbers with few bits make halves common.
    """
    return float(2 ** (round(math.log2(scale) * 2**11) / 2**11))


# Pixels as they are: 0-255 becomes -128 to 127.
_PIXELS = Grid(1.0, -128)
_PIXELS_UINT8 = (1.0, 0, 0, 255, torch.uint8)


class Histogram:
    """Values of a tensor over all images, around zero; the range doubles when it has to."""

    def __init__(self) -> None:
        self.counts = torch.zeros(_BINS)
        self.top = self.low = self.high = 0.0

    def add(self, x: Tensor) -> None:
        """Count one tensor."""
        low, high = (float(side) for side in torch.aminmax(x.detach()))
        self.low, self.high = min(self.low, low), max(self.high, high)
        needed = max(-low, high, 1e-6)
        if self.top == 0.0:
            self.top = needed
        while self.top < needed:  # two bins become one, about the same middle
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = torch.cat(
                (pairs.new_zeros(_BINS // 4), pairs, pairs.new_zeros(_BINS // 4))
            )
            self.top *= 2
        self.counts += torch.histc(x.detach().float(), _BINS, -self.top, self.top)

    def grid(self) -> Grid:
        """Choose the int8 grid that loses least, by rounding and by clipping."""
        width = 2 * self.top / _BINS
        values = (torch.arange(_BINS) + 0.5) * width - self.top
        shares = torch.linspace(0.1, 1.0, 91)[:, None]
        low, high = self.low * shares, self.high * shares
        clipped = values - torch.minimum(torch.maximum(values, low), high)
        rounding = ((high - low) / 255) ** 2 / 12
        errors = (self.counts * torch.where(clipped == 0, rounding, clipped**2)).sum(1)
        share = float(shares[errors.argmin(), 0])
        return Grid.between(self.low * share, self.high * share)


@dataclass(frozen=True)
class FullQuantization:
    """The grids of a model's tensors.

    Attributes
    ----------
    options : EdgeOptions
        The edge form that they belong to.
    grids : dict
        By the name of the traced operation that computes the tensor, or of the constant.
    input_scales : dict
        Of what goes into each linear and convolution, by the operation's name.
    calibration : Calibration
        Where they come from.
    """

    options: EdgeOptions
    grids: Mapping[str, Grid]
    input_scales: Mapping[str, float]
    calibration: Calibration
    scheme: str = SCHEME
    trained: bool = False
    float_layers: Mapping[str, str] = field(default_factory=dict)

    def program(self, model: SepViT, batch: int = 1, taps: bool = False) -> ExportedProgram:
        """Trace the quantised edge form of a model.

        Raises
        ------
        SepViTError
            If the grids belong to another model or another edge form.
        """
        return quantized_program(EdgeModel(model, batch, self.options, taps), self)


def calibrate_full(
    model: SepViT,
    data: Dataset,
    options: EdgeOptions,
    *,
    images: int = CALIBRATION_IMAGES,
    advance: Callable[[int], None] = lambda _: None,
) -> FullQuantization:
    """Measure the grid of every tensor on images.

    Parameters
    ----------
    model : SepViT
        In evaluation mode.
    data : Dataset
        Typical images; not those that accuracy is measured on.
    options : EdgeOptions
        The edge form to be quantised.
    images : int
        How many of them, evenly over the set.
    advance : callable
        Told the number of images done.

    Raises
    ------
    SepViTError
        If the data has no images, or the edge form keeps norms or softmax whole.
    """
    whole = "native" in (options.layer_norm, options.softmax)
    if whole or options.input != "uint8-nhwc":
        raise SepViTError(
            "full int8 quantises uint8 pixels and single operations: the recipe needs [edge] "
            'input = "uint8-nhwc", layer_norm = "lookup" and softmax = "linear"'
        )
    pixels, digest = calibration_pixels(model, data, images)
    program = trace(EdgeModel(model, _BATCH, options))
    grids, scales = _observe(program, pixels, advance)
    facts = Calibration(data.name, len(pixels), digest, "mse")
    return FullQuantization(options, grids, scales, facts)


@torch.no_grad()
def _observe(
    program: ExportedProgram, pixels: np.ndarray, advance: Callable[[int], None]
) -> tuple[dict[str, Grid], dict[str, float]]:
    """Run the float program on all pixels; tensors with one number share a histogram."""
    groups = _groups(program)
    histograms = {group: Histogram() for group in groups.values()}

    class Observer(Interpreter):
        def run_node(self, node: Node) -> Any:
            value = super().run_node(node)
            if node in groups and node.target not in _MOVES:
                histograms[groups[node]].add(value)
            return value

    observer = Observer(program.graph_module)
    constants = list(constants_of(program).values())
    for batch, count in batches(pixels, _BATCH):
        observer.run(*constants, batch)
        advance(count)
    by_group: dict[int, Grid] = {}
    for group, histogram in histograms.items():
        members = [node for node, other in groups.items() if other == group]
        readers = {user.target for node in members for user in node.users}
        if any(node.name == program.graph_signature.user_outputs[0] for node in members):
            by_group[group] = Grid.between(histogram.low, histogram.high, 16)
        elif _ATEN.exp.default in readers:
            by_group[group] = Grid.between(max(histogram.low, _EXP_FROM), 0.0)
        else:
            by_group[group] = histogram.grid()
    layers = [node for node in program.graph.nodes if node.target in LAYERS]
    return (
        {n.name: by_group[g] for n, g in groups.items() if n.target not in _MOVES},
        {n.name: by_group[groups[n.args[0]]].scale for n in layers},
    )


def constants_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Values of the placeholders in front of the input, in the order of the graph."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return {placeholder: program.state_dict[name] for placeholder, name in names.items()}


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float32


def _groups(program: ExportedProgram) -> dict[Node, int]:
    """Number every float tensor that gets a grid; those with one number share theirs.

    Weights and biases are not among them: their grids follow from themselves.
    """
    apart = set()
    for node in program.graph.nodes:
        if node.target in LAYERS:
            apart |= set(node.args[1:3])
        elif str(node.target).startswith("quantized_decomposed."):
            apart |= {node, *node.all_input_nodes}
        elif node.target is _ATEN._to_copy.default:  # of pixels
            apart.add(node)
    groups: dict[Node, int] = {}
    for number, node in enumerate(program.graph.nodes):
        if node.op == "output" or node in apart or not _is_float(node):
            continue
        groups[node] = number
        if node.target in _MOVES:
            joined = {groups[source] for source in node.all_input_nodes if source in groups}
            groups = {n: number if g in joined else g for n, g in groups.items()}
    return groups


class _Int8Weights(nn.Module):
    """A linear or convolution with int8 weights and an int32 bias."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, input_scale: float) -> None:
        super().__init__()
        self.function = LayerFunction(layer)
        scale = weight_scales(layer.weight)
        self.weight = nn.Buffer(quantize_weight(layer.weight, scale))
        self.weight_scale = nn.Buffer(scale)
        self.zero_points = nn.Buffer(torch.zeros(len(scale), dtype=torch.int64))
        assert layer.bias is not None
        self.bias_scale = nn.Buffer(scale * input_scale)
        steps = layer.bias.detach().double() / self.bias_scale.double()
        self.bias = nn.Buffer(steps.round().clamp(-(2**31) + 1, 2**31 - 1).to(torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shapes of the layer."""
        limit, wide = weight_range(), 2**31 - 1
        weight = _OPS.dequantize_per_channel(
            self.weight, self.weight_scale, self.zero_points, 0, -limit, limit, torch.int8
        )
        bias = _OPS.dequantize_per_channel(
            self.bias, self.bias_scale, self.zero_points, 0, -wide, wide, torch.int32
        )
        return self.function(x, weight, bias)


def quantized_program(edge: EdgeModel, quantization: FullQuantization) -> ExportedProgram:
    """Trace an edge model with every tensor on its grid; the edge model is changed in place.

    Raises
    ------
    SepViTError
        If the grids belong to another model or another edge form.
    """
    for name, layer in quantizable_layers(edge).items():
        kind = "linear" if isinstance(layer, nn.Linear) else "convolution"
        operation = f"{name.replace('.', '_')}__{kind}"
        if operation not in quantization.input_scales:
            raise SepViTError(f"the quantisation does not fit the model: {name}")
        scale = quantization.input_scales[operation]
        edge.set_submodule(name, _Int8Weights(layer, scale))
    program = trace(edge)
    pixels = _take_pixels(program)
    groups = _groups(program)
    by_group = {groups[pixels]: _PIXELS}
    by_group |= {
        groups[node]: quantization.grids[node.name]
        for node in groups
        if node.name in quantization.grids
    }
    for node in groups:
        if groups[node] not in by_group:
            raise SepViTError(f"the quantisation does not fit the model: {node.name}")
    for node in [node for node in program.graph.nodes if node.target in LAYERS]:
        _quantize_row(program, node, by_group[groups[node.args[0]]].scale)
    for node, group in groups.items():
        if node.op == "placeholder":
            _quantize_constant(program, node, by_group[group])
        else:
            _put_on_grid(node, by_group[group])
    program.graph_module.recompile()
    return program


def _after(node: Node, target: Any, arguments: tuple[Any, ...], name: str) -> Node:
    """Insert an operation of a node behind it; who read the node still does."""
    graph = node.graph
    with graph.inserting_after(node):
        made = graph.call_function(target, (node, *arguments))
    made._rename(name)
    made.meta = dict(node.meta)
    made.meta["val"] = target(node.meta["val"], *arguments)
    return made


def _read_instead(node: Node, made: Node, own: tuple[Node, ...]) -> None:
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user not in own)


def _put_on_grid(node: Node, grid: Grid) -> None:
    """Quantise and dequantise a tensor for all who read it."""
    quantized = _after(
        node, _OPS.quantize_per_tensor.default, grid.arguments, f"{node.name}_quantize"
    )
    restored = _after(
        quantized, _OPS.dequantize_per_tensor.default, grid.arguments, f"{node.name}_dequantize"
    )
    _read_instead(node, restored, (quantized,))


def _quantize_constant(program: ExportedProgram, node: Node, grid: Grid) -> None:
    """Store a constant as integers, and dequantise it for all who read it."""
    signature = program.graph_signature
    key = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}[node.name]
    integers = grid.integers(program.state_dict[key].detach())
    parameter = node.name in signature.inputs_to_parameters
    program.state_dict[key] = nn.Parameter(integers, False) if parameter else integers
    node.meta["val"] = node.meta["val"].to(integers.dtype)
    restored = _after(
        node, _OPS.dequantize_per_tensor.default, grid.arguments, f"{node.name}_dequantize"
    )
    _read_instead(node, restored, (restored,))


def row_grid(weight: Tensor) -> Grid:
    """Grid of a product's row of ones, or 1 / C."""
    return Grid(float(weight.abs().max()) / weight_range(), 0)


def accumulator_grid(input_scale: float, weight_scale: float) -> Grid:
    """Grid of what is added to a product before it is rounded, as an epsilon is."""
    return Grid(input_scale * weight_scale, 0, 32)


def _quantize_row(program: ExportedProgram, node: Node, input_scale: float) -> None:
    """Quantise the constants of a product that is no layer; two products may share a row."""
    weight, *bias = (argument for argument in node.args[1:3] if isinstance(argument, Node))
    if weight.op == "placeholder":
        _quantize_constant(program, weight, row_grid(constants_of(program)[weight.name]))
    for constant in bias:
        if constant.op == "placeholder":
            weight_scale: Any = node.args[1].args[1]  # type: ignore[union-attr]
            _quantize_constant(program, constant, accumulator_grid(input_scale, weight_scale))


def _take_pixels(program: ExportedProgram) -> Node:
    """Turn the cast of uint8 pixels into a grid; returns the pixels' permutation, now on it."""
    cast = next(n for n in program.graph.nodes if n.target is _ATEN._to_copy.default)
    permuted = cast.args[0]
    pixels = permuted.args[0]
    exact = _after(pixels, _OPS.dequantize_per_tensor.default, _PIXELS_UINT8, "input__pixels")
    quantized = _after(
        exact, _OPS.quantize_per_tensor.default, _PIXELS.arguments, "input__pixels_quantize"
    )
    restored = _after(
        quantized, _OPS.dequantize_per_tensor.default, _PIXELS.arguments, "input__pixels_dequantize"
    )
    _read_instead(pixels, restored, (exact,))
    permuted.meta["val"] = cast.meta["val"]
    cast.replace_all_uses_with(permuted)
    program.graph.erase_node(cast)
    for node in list(permuted.users):  # that the pixels are uint8
        if node.target is _ATEN._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    return permuted


@torch.no_grad()
def run_exactly(program: ExportedProgram, pixels: Tensor) -> list[Tensor]:
    """Run a quantised program as its integers are computed on a unit: the same to the last bit.

    In float32 some of what is nearly half a step is rounded the wrong way. What reads it differs
    then too, and after all blocks of SepViT-Lite little more than 30 dB are left.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        From `quantized_program`.
    pixels : Tensor
        uint8, of the shape of its input.

    Returns
    -------
    list of Tensor
        Its outputs, float64.
    """
    constants = [
        value.double() if value.is_floating_point() else value
        for value in constants_of(program).values()
    ]
    outputs: list[Tensor] = _Exact(program.graph_module).run(*constants, pixels)
    return list(outputs)


def round_half_up(x: Tensor) -> Tensor:
    """To integers, halves up."""
    return (x + 0.5).floor()


def _multiplier(ratio: Tensor) -> Tensor:
    """What TOSA's RESCALE multiplies by for a ratio of scales: it has 31 bits."""
    mantissa, exponent = torch.frexp(ratio)
    return torch.ldexp((mantissa * 2**31).round(), exponent - 31)


class _Exact(Interpreter):
    """TOSA's arithmetic, in float64; torch's own operations for grids take float32 only.

    - Halves are rounded up (torch rounds them to even). They are not rare: pixels less a mean of
      127.5 are nothing else, and rounded to even they leave 33 dB of SepViT-Lite.
    - What a product has added up is brought to its result's grid by a multiplier of 31 bits, and
      what is added together is first brought to one grid of 2**20 steps (``InsertRescaleInt32Pass``
      of ExecuTorch's Arm backend). Without these two an integer in some images in a hundred goes
      the other way, and of such an image 30 dB are left.
    """

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.scales: dict[Node, Tensor] = {}  # of the integers that a node's values stand for

    def run_node(self, n: Node) -> Any:
        arguments: Any = self.fetch_args_kwargs_from_env(n)[0]
        read: list[Any] = [self.scales.get(source) for source in n.all_input_nodes[:2]]
        if n.target is _OPS.dequantize_per_tensor.default:
            integers, scale, zero_point, *_ = arguments
            self.scales[n] = torch.tensor(scale, dtype=torch.float64)
            return (integers.double() - zero_point) * scale
        if n.target is _OPS.dequantize_per_channel.default:
            integers, scale, *_ = arguments
            self.scales[n] = scale
            return integers.double() * scale.reshape([-1] + [1] * (integers.ndim - 1))
        if n.target is _OPS.quantize_per_tensor.default:
            x, scale, zero_point, low, high, dtype = arguments
            if read[0] is None:  # a table, or moved values
                steps = x / scale
            else:
                steps = (x / read[0]).round() * _multiplier(read[0] / scale)
            return (round_half_up(steps) + zero_point).clamp(low, high).to(dtype)
        if n.target in (_ATEN.add.Tensor, _ATEN.sub.Tensor):
            common = self.scales[n] = 2 * max(read) / 2**20
            values = [
                round_half_up((x / scale).round() * _multiplier(scale / common)) * common
                for x, scale in zip(arguments, read, strict=True)
            ]
            return super().call_function(n.target, tuple(values), {})
        if n.target in LAYERS or n.target in (_ATEN.bmm.default, _ATEN.mul.Tensor):
            scale = read[0] * read[-1]  # a tensor times itself is read once
            is_map = n.target is _ATEN.convolution.default
            self.scales[n] = scale.reshape(-1, 1, 1) if is_map else scale
        return super().run_node(n)
