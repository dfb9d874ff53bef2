"""The layout of Ethos-U: the stream is (rows, C), and each attention head is computed on its own.

Only what differs from rows.py: a permutation costs more than a product here (principles 9 and 10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..variants import HEAD_DIM
from .weights import (
    BlockWeights,
    DSAWeights,
    EmbeddingWeights,
    HeadWeights,
    PSAWeights,
    Sides,
    Windows,
)

if TYPE_CHECKING:
    from .form import Form
    from .taps import Taps


class ThinnedStem(nn.Module):
    """The first convolution at stride 2, then every other row and column dropped.

    For units whose strides end at 3 (Ethos-U55); it costs four times the first convolution's work.
    """

    def __init__(self, form: Form, weights: EmbeddingWeights) -> None:
        super().__init__()
        self.norm = form.norm(weights.norm)
        self.proj = weights.proj.convolution(stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (rows, C)."""
        x = self.proj(x).permute(0, 2, 3, 1)
        C, half = x.shape[3], x.shape[2] // 2
        # Rows, then columns: both at once are miscompiled by the Arm backend for Ethos-U55.
        x = x.reshape(-1, 4 * half * C).narrow(1, 0, 2 * half * C)
        x = x.reshape(-1, 2 * C).narrow(1, 0, C)
        return self.norm(x.reshape(-1, C))


class DSA(nn.Module):
    """Attention within windows: norm1, tokens, heads side by side, shortcut."""

    def __init__(self, form: Form, weights: DSAWeights, windows: Windows, batch: int) -> None:
        super().__init__()
        self.count, self.heads = batch * windows.count, weights.norm.width // HEAD_DIM
        self.norm = form.norm(weights.norm)
        # Principle 9: linears for each head.
        self.q, self.k, self.v = weights.q.heads(), weights.k.heads(), weights.v.heads()
        self.tokens = windows.pixels + (weights.window_tokens is not None)
        self.softmax, self.ones = form.softmax, form.softmax.constant(self.tokens)
        self.window_tokens = weights.token_rows(batch)  # principle 3

    def forward(self, x: Tensor) -> Tensor:
        """(B n M, C) in window order -> (B n T, C)."""
        C, n, T = x.shape[1], self.count, self.tokens
        x = self.norm(x)
        if self.window_tokens is not None:
            x = torch.cat((self.window_tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)
        queries = [linear(x).reshape(n, T, HEAD_DIM) for linear in self.q]
        keys = [linear(x).reshape(n, T, HEAD_DIM) for linear in self.k]
        values = [linear(x).reshape(n, T, HEAD_DIM) for linear in self.v]
        scores = _stacked([_product(q, k) for q, k in zip(queries, keys, strict=True)], 0)
        weights = _pieces(self.softmax.apply(scores, self.ones), self.heads, 0)
        mixed = [torch.bmm(a, v) for a, v in zip(weights, values, strict=True)]
        return _stacked(mixed, 2).reshape(n * T, C) + x


class PSA(nn.Module):
    """Attention among windows, from their tokens; the windows' maps are the values."""

    def __init__(self, form: Form, weights: PSAWeights, windows: Windows, batch: int) -> None:
        super().__init__()
        self.batch, self.windows = batch, windows.count
        self.heads = weights.norm.width // HEAD_DIM
        self.norm = form.norm(weights.norm)
        self.q, self.k = weights.q.heads(), weights.k.heads()  # principle 9
        self.softmax, self.ones = form.softmax, form.softmax.constant(self.windows)
        self.identity = nn.Buffer(torch.eye(self.windows)[None])

    def forward(self, x: Tensor) -> Tensor:
        """(B n T, C) -> (B n M, C)."""
        B, n, h, C = self.batch, self.windows, self.heads, x.shape[1]
        x = x.reshape(B * n, -1, C)
        M = x.shape[1] - 1
        tokens = F.gelu(self.norm(x[:, :1].reshape(B * n, C)))
        x = x[:, 1:]
        queries = [linear(tokens).reshape(B, n, HEAD_DIM) for linear in self.q]
        keys = [linear(tokens).reshape(B, n, HEAD_DIM) for linear in self.k]
        scores = _stacked([_product(q, k) for q, k in zip(queries, keys, strict=True)], 0)
        # Principle 4: the identity is the shortcut.
        weights = _pieces(self.softmax.apply(scores, self.ones) + self.identity, h, 0)
        values = [v.reshape(B, n, M * HEAD_DIM) for v in _pieces(x, h, 2)]
        mixed = [torch.bmm(a, v) for a, v in zip(weights, values, strict=True)]
        y = _stacked([y.reshape(B * n, M, HEAD_DIM) for y in mixed], 2)
        return y.reshape(B * n * M, -1)


class Block(nn.Module):
    """One SepViT block; the stream enters and leaves in map order."""

    def __init__(self, form: Form, weights: BlockWeights, batch: int) -> None:
        super().__init__()
        self.windows, self.batch = weights.windows, batch
        self.dsa = form.dsa(form, weights.dsa, weights.windows, batch)
        self.psa = (
            form.psa(form, weights.psa, weights.windows, batch) if weights.psa is not None else None
        )
        self.proj = weights.proj.linear()
        self.mlp = form.mlp(form, weights.mlp)

    def cut(self, x: Tensor) -> Tensor:
        """(rows, C) in map order -> window order."""
        return self.swapped(x, self.windows.side, self.windows.columns)

    def joined(self, x: Tensor) -> Tensor:
        """(rows, C) in window order -> map order."""
        return self.swapped(x, self.windows.columns, self.windows.side)

    def swapped(self, x: Tensor, first: int, second: int) -> Tensor:
        """Swap the inner axes of each row of windows on its own (principle 10)."""
        if self.windows.count == 1:
            return x
        C, rows = x.shape[1], self.batch * self.windows.rows
        x = x.reshape(rows, first, second, self.windows.side * C)
        swapped = [piece.permute(0, 2, 1, 3) for piece in _pieces(x, rows, 0)]
        return _stacked(swapped, 0).reshape(-1, C)

    def forward(self, x: Tensor, taps: Taps, name: str) -> Tensor:
        """(rows, C) -> (rows, C)."""
        x = self.cut(x)
        y = self.dsa(x)
        taps.keep(f"{name}.dsa", y)
        if self.psa is not None:
            y = self.psa(y)
            taps.keep(f"{name}.psa", y)
        x = x + self.proj(y)  # principle 7: in window order
        taps.keep(f"{name}.proj", x, self.joined)
        x = self.joined(x + self.mlp(x))
        taps.keep(f"{name}.mlp", x)
        return x


class Head(nn.Module):
    """Final LayerNorm, mean over positions as a product (principle 8), classifier.

    The Arm backend has no integer mean over positions.
    """

    def __init__(self, form: Form, weights: HeadWeights, sides: Sides, batch: int) -> None:
        super().__init__()
        self.batch, self.positions = batch, sides[0] * sides[1]
        self.norm = form.norm(weights.norm)
        shares = torch.full((batch, 1, self.positions), 1 / self.positions)
        self.average = nn.Buffer(shares)
        self.classifier = weights.classifier.linear()

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (B, classes)."""
        C = x.shape[1]
        x = torch.bmm(self.average, self.norm(x).reshape(self.batch, self.positions, C))
        return self.classifier(x.reshape(self.batch, C))


def _product(q: Tensor, k: Tensor) -> Tensor:
    """(n, T, d), (n, T, d) -> (n, T, T) (principle 6).

    k is transposed by a permutation of rank 4, which Vela sees to be what its products want.
    """
    n, T, d = k.shape
    return torch.bmm(q, k.reshape(1, n, T, d).permute(0, 1, 3, 2).reshape(n, d, T))


def _pieces(x: Tensor, count: int, axis: int) -> list[Tensor]:
    """Cut an axis into equal slices."""
    width = x.shape[axis] // count
    return [x.narrow(axis, i * width, width) for i in range(count)] if count > 1 else [x]


def _stacked(pieces: list[Tensor], axis: int) -> Tensor:
    """Put slices one behind the other along an axis."""
    return torch.cat(pieces, axis) if len(pieces) > 1 else pieces[0]
