"""Scale and zero point of a tensor, and their choice from a histogram of its values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.quantized import WEIGHT_LIMIT

_OPS = torch.ops.quantized_decomposed
_BINS = 4096
_DTYPES = {16: torch.int16, 32: torch.int32}


@dataclass(frozen=True)
class QParams:
    """Quantisation parameters of a tensor: ``value = scale * (integer - zero_point)``.

    Attributes
    ----------
    scale : float
        Value of one unit of the integers.
    zero_point : int
        Integer that stands for 0.
    bits : int
        8, 16 or 32; 16 and 32 are symmetric.

    Examples
    --------
    >>> QParams.between(0.0, 1.0).zero_point
    -128
    """

    scale: float
    zero_point: int
    bits: int = 8

    @classmethod
    def between(cls, low: float, high: float, bits: int = 8) -> QParams:
        """Choose them for a range; zero is always exact, since padding is zero."""
        low, high = min(low, 0.0), max(high, 0.0, low + 1e-6)
        if bits == 16:
            return cls(_nearby(max(-low, high) / 32767), 0, 16)
        scale = _nearby((high - low) / 255)
        return cls(scale, round(-128 - low / scale))

    @property
    def arguments(self) -> tuple[float, int, int, int, torch.dtype]:
        """Arguments of `quantize_per_tensor` after the tensor."""
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


class ValueHistogram:
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

    def qparams(self) -> QParams:
        """Choose the int8 parameters with the least squared error of rounding and clipping."""
        width = 2 * self.top / _BINS
        values = (torch.arange(_BINS) + 0.5) * width - self.top
        shares = torch.linspace(0.1, 1.0, 91)[:, None]
        low, high = self.low * shares, self.high * shares
        clipped = values - torch.minimum(torch.maximum(values, low), high)
        rounding = ((high - low) / 255) ** 2 / 12
        errors = (self.counts * torch.where(clipped == 0, rounding, clipped**2)).sum(1)
        share = float(shares[errors.argmin(), 0])
        return QParams.between(self.low * share, self.high * share)


def row_qparams(weight: Tensor) -> QParams:
    """QParams of a product's row of ones, or 1 / C."""
    return QParams(float(weight.abs().max()) / WEIGHT_LIMIT, 0)


def accumulator_qparams(input_scale: float, weight_scale: float) -> QParams:
    """QParams of what is added to a product before it is rounded, as an epsilon is."""
    return QParams(input_scale * weight_scale, 0, 32)
