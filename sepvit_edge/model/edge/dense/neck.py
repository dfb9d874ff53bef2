"""The feature pyramid, from streams of rows to maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..weights import Sides
from .weights import FPNWeights


def as_map(x: Tensor, sides: Sides) -> Tensor:
    """(h w, C) -> (1, C, h, w)."""
    return x.reshape(1, *sides, x.shape[1]).permute(0, 3, 1, 2)


def as_rows(x: Tensor) -> Tensor:
    """(1, C, h, w) -> (h w, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def halved(x: Tensor) -> Tensor:
    """Take every other row and column of (1, C, h, w), from the first on (principle 18)."""
    h, w = x.shape[2:]
    rows = _every_other(as_rows(x).reshape(1, h, -1))
    pixels = _every_other(rows.reshape(-1, w, x.shape[1]))
    return as_map(pixels.reshape(-1, x.shape[1]), (len(pixels), pixels.shape[1]))


def _every_other(x: Tensor) -> Tensor:
    """(a, n, c) -> (a, ceil(n / 2), c): pairs as one row each, of which the first half stays."""
    a, n, c = x.shape
    if n == 1:
        return x
    if n % 2:
        return torch.cat((_every_other(x[:, : n - 1]), x[:, n - 1 :]), 1)
    return x.reshape(a, n // 2, 2 * c)[:, :, :c]


class FPN(nn.Module):
    """Laterals are linears of rows, sums are of rows, levels are maps."""

    def __init__(self, weights: FPNWeights, sides: list[Sides]) -> None:
        super().__init__()
        self.first, self.sides, self.top = weights.first, sides[weights.first :], sides[-1]
        self.lateral = nn.ModuleList(layer.linear() for layer in weights.lateral)
        self.levels = nn.ModuleList(layer.convolution() for layer in weights.levels)
        self.extra = nn.ModuleList(layer.convolution(stride=2) for layer in weights.extra)
        self.pooled, channels = weights.pooled, len(weights.lateral[0].weight)
        self.zeros = nn.Buffer(torch.zeros(1, 2, channels))

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        """Streams (h w, C) of the stages -> maps (1, channels, h, w), one a level."""
        sums = [f(x) for f, x in zip(self.lateral, streams[self.first :], strict=True)]
        for i in range(len(sums) - 1, 0, -1):
            sums[i - 1] = self.added(sums[i - 1], sums[i], self.sides[i])
        maps = [as_map(x, sides) for x, sides in zip(sums, self.sides, strict=True)]
        levels = [conv(x) for conv, x in zip(self.levels, maps, strict=True)]
        top = as_map(streams[-1], self.top)
        for conv in self.extra:
            top = conv(top)
            levels.append(top)
        if self.pooled:
            levels.append(halved(levels[-1]))
        return levels

    def added(self, fine: Tensor, coarse: Tensor, sides: Sides) -> Tensor:
        """Add (h w, C), each pixel to a square of four, to (2 h 2 w, C) (principle 15)."""
        (h, w), C = sides, fine.shape[1]
        doubled = (coarse.reshape(h * w, 1, C) + self.zeros).reshape(h, 1, 2 * w * C)
        return (fine.reshape(h, 2, 2 * w * C) + doubled).reshape(-1, C)
