"""The CSWin block as its paper describes it (arXiv 2107.00652), which timm does not have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Stripes(nn.Module):
    """Attention within stripes, with the locally enhanced position encoding of the values.

    Parameters
    ----------
    dim, heads : int
        Channels and heads of this half.
    height, width : int
        Of a stripe.
    """

    def __init__(self, dim: int, heads: int, height: int, width: int) -> None:
        super().__init__()
        self.heads, self.height, self.width = heads, height, width
        self.lepe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def cut(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (stripes, height, width, C)."""
        B, H, W, C = x.shape
        x = x.reshape(B, H // self.height, self.height, W // self.width, self.width, C)
        return x.transpose(2, 3).reshape(-1, self.height, self.width, C)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each (B, H, W, C) -> (B, H, W, C)."""
        B, H, W, C = q.shape
        q, k, v = self.cut(q), self.cut(k), self.cut(v)
        position = self.lepe(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        q, k, v = (x.reshape(len(x), -1, self.heads, C // self.heads) for x in (q, k, v))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        scores = q @ k.transpose(-2, -1) * (C // self.heads) ** -0.5
        x = (scores.softmax(-1) @ v).transpose(1, 2).reshape(position.shape) + position
        x = x.reshape(B, H // self.height, W // self.width, self.height, self.width, C)
        return x.transpose(2, 3).reshape(B, H, W, C)


class CSWinBlock(nn.Module):
    """Half of the heads in horizontal stripes, half in vertical ones; then the MLP.

    Parameters
    ----------
    dim, heads, side : int
        Channels, heads, and side of the map.
    stripe : int
        Width of a stripe.
    """

    def __init__(self, dim: int, heads: int, side: int, stripe: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.horizontal = Stripes(dim // 2, heads // 2, stripe, side)
        self.vertical = Stripes(dim // 2, heads // 2, side, stripe)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        halves = [part.chunk(2, -1) for part in self.qkv(self.norm1(x)).chunk(3, -1)]
        first, second = zip(*halves, strict=True)
        x = x + self.proj(torch.cat((self.horizontal(*first), self.vertical(*second)), -1))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
