"""LayerNorm over (rows, C) and softmax, as the units differ in them (principle 8).

A norm is made of `NormWeights`. A softmax is no module: its operations are named after the
attention that they belong to, and that attention owns its constant.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import NormWeights


class LayerNorm(nn.Module):
    """The runtime's own LayerNorm."""

    def __init__(self, weights: NormWeights) -> None:
        super().__init__()
        self.shape, self.eps = (weights.width,), weights.eps
        self.weight, self.bias = weights.parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class ProductNorm(nn.Module):
    """Means as products with 1 / C, for XNNPACK."""

    def __init__(self, weights: NormWeights) -> None:
        super().__init__()
        self.weight, self.bias = weights.parameters()
        self.average = nn.Buffer(torch.full((1, weights.width), 1 / weights.width))
        self.epsilon = nn.Buffer(torch.full((1,), weights.eps))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        centred = x - F.linear(x, self.average)
        squares = centred * centred
        x = centred * torch.rsqrt(F.linear(squares, self.average, self.epsilon))
        return _affine(x, self.weight, self.bias)


class TableNorm(nn.Module):
    """Means as products with 1 / C and the square as a power, which is a table on Ethos-U."""

    def __init__(self, weights: NormWeights) -> None:
        super().__init__()
        self.weight, self.bias = weights.parameters()
        self.average = nn.Buffer(torch.full((1, weights.width), 1 / weights.width))
        self.epsilon = nn.Buffer(torch.full((1,), weights.eps))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        centred = x - F.linear(x, self.average)
        squares = centred.pow(2)
        x = centred * torch.rsqrt(F.linear(squares, self.average, self.epsilon))
        return _affine(x, self.weight, self.bias)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Apply what no linear has taken of a norm (principle 4)."""
    return x if weight is None or bias is None else x * weight + bias


class Softmax:
    """The runtime's own softmax over the last axis."""

    @staticmethod
    def constant(width: int) -> nn.Buffer | None:
        """Return what `apply` needs for rows of a width; the attention registers it."""
        return None

    @staticmethod
    def apply(x: Tensor, constant: Tensor | None) -> Tensor:
        """(..., width) -> (..., width)."""
        return torch.softmax(x, -1)


class ProductSoftmax(Softmax):
    """The sum as a product with ones, for Ethos-U."""

    @staticmethod
    def constant(width: int) -> nn.Buffer | None:
        """Return a row of ones."""
        return nn.Buffer(torch.ones(1, width))

    @staticmethod
    def apply(x: Tensor, constant: Tensor | None) -> Tensor:
        """(..., width) -> (..., width)."""
        assert constant is not None
        x = torch.exp(x - x.amax(-1, keepdim=True))
        return x * torch.reciprocal(F.linear(x, constant))
