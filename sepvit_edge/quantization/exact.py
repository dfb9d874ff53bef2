"""TOSA's arithmetic in float64: the integers of a fully quantised program, to the last bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

from .full_program import LAYERS, constants_of

_ATEN = torch.ops.aten
_OPS = torch.ops.quantized_decomposed


@torch.no_grad()
def run_exactly(program: ExportedProgram, pixels: Tensor) -> list[Tensor]:
    """Run a quantised program as its integers are computed on a unit: the same to the last bit.

    In float32 some values near a half are rounded the other way. Everything that reads them differs
    too, and after all blocks of SepViT-Lite little more than 30 dB are left.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        Program of `full_program.quantized_program`.
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
    """Round to integers, halves up."""
    return (x + 0.5).floor()


def _multiplier(ratio: Tensor) -> Tensor:
    """Return the multiplier of TOSA's RESCALE for a ratio of scales; it has 31 bits."""
    mantissa, exponent = torch.frexp(ratio)
    return torch.ldexp((mantissa * 2**31).round(), exponent - 31)


class _Exact(Interpreter):
    """TOSA's arithmetic, in float64; torch's own quantised operations take float32 only.

    - Halves are rounded up (torch rounds them to even). They are common: pixels less a mean of
      127.5 are all halves, and rounded to even they leave 33 dB of SepViT-Lite.
    - The sum of a product is rescaled to its result's scale by a multiplier of 31 bits, and terms
      of an addition are first rescaled to a common scale, 2**20 of which span them
      (``InsertRescaleInt32Pass`` of ExecuTorch's Arm backend). Without these two an integer differs
      in some images in a hundred, and 30 dB are left of such an image.
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
                integers = x / scale
            else:
                integers = (x / read[0]).round() * _multiplier(read[0] / scale)
            return (round_half_up(integers) + zero_point).clamp(low, high).to(dtype)
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
