"""The layout of Rockchip: the stream is (B, C, H, W), linears are convolutions (principle 11)."""

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
    LayerWeights,
    MLPWeights,
    NormWeights,
    PSAWeights,
    Sides,
    Windows,
)

if TYPE_CHECKING:
    from .form import Form
    from .taps import Taps


class LayerNorm(nn.Module):
    """The runtime's own LayerNorm, over the channels of a map."""

    def __init__(self, weights: NormWeights) -> None:
        super().__init__()
        self.shape, self.eps = (weights.width,), weights.eps
        self.weight, self.bias = weights.parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Stem(nn.Module):
    """The first patch embedding: strided convolution and LayerNorm."""

    def __init__(self, form: Form, weights: EmbeddingWeights) -> None:
        super().__init__()
        self.norm = form.norm(weights.norm)
        self.proj = weights.proj.convolution(stride=4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / 4, W / 4)."""
        return self.norm(self.proj(x))


class Embedding(nn.Module):
    """A later patch embedding."""

    def __init__(self, form: Form, weights: EmbeddingWeights, sides: Sides) -> None:
        super().__init__()
        self.norm = form.norm(weights.norm)
        self.proj = weights.proj.convolution(stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of the previous stage -> (B, 2 C, H / 2, W / 2)."""
        return self.norm(self.proj(x))


class PositionEncoding(nn.Module):
    """The depthwise convolution; "+ x" is in its centre tap (principle 4)."""

    def __init__(self, weights: LayerWeights, sides: Sides) -> None:
        super().__init__()
        self.proj = weights.convolution(groups=len(weights.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.proj(x)


class DSA(nn.Module):
    """Attention within windows: norm1, tokens, heads, shortcut."""

    def __init__(self, form: Form, weights: DSAWeights, windows: Windows, batch: int) -> None:
        super().__init__()
        self.rows = batch * (weights.norm.width // HEAD_DIM)  # B h
        self.norm = form.norm(weights.norm)
        self.q, self.k, self.v = (layer.pointwise() for layer in (weights.q, weights.k, weights.v))
        self.tokens = windows.pixels + (weights.window_tokens is not None)
        self.softmax, self.ones = form.softmax, form.softmax.constant(self.tokens)
        self.window_tokens = weights.token_map(batch)  # principle 3

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, n, M) -> (B, C, n, T)."""
        x = self.norm(x)
        if self.window_tokens is not None:
            x = torch.cat((self.window_tokens, x), 3)
        n, T, Bh = x.shape[2], self.tokens, self.rows
        # Principle 5: three products, k straight to (d, T).
        q = self.q(x).reshape(Bh, HEAD_DIM, n, T).permute(0, 2, 3, 1).reshape(-1, T, HEAD_DIM)
        k = self.k(x).reshape(Bh, HEAD_DIM, n, T).permute(0, 2, 1, 3).reshape(-1, HEAD_DIM, T)
        v = self.v(x).reshape(Bh, HEAD_DIM, n, T).permute(0, 2, 3, 1).reshape(-1, T, HEAD_DIM)
        y = torch.bmm(self.softmax.apply(torch.bmm(q, k), self.ones), v)  # principle 6
        return y.reshape(Bh, n, T, HEAD_DIM).permute(0, 3, 1, 2).reshape(x.shape) + x


class PSA(nn.Module):
    """Attention among windows, from their tokens; the windows' maps are the values."""

    def __init__(self, form: Form, weights: PSAWeights, windows: Windows, batch: int) -> None:
        super().__init__()
        self.rows = batch * (weights.norm.width // HEAD_DIM)  # B h
        self.norm = form.norm(weights.norm)
        self.q, self.k = weights.q.pointwise(), weights.k.pointwise()
        self.softmax, self.ones = form.softmax, form.softmax.constant(windows.count)
        self.identity = nn.Buffer(torch.eye(windows.count)[None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, n, T) -> (B, C, n, M)."""
        B, C, n, T = x.shape
        Bh = self.rows
        tokens = F.gelu(self.norm(x[..., :1]))
        q = self.q(tokens).reshape(Bh, HEAD_DIM, n).permute(0, 2, 1)
        k = self.k(tokens).reshape(Bh, HEAD_DIM, n)
        # Principle 4: the identity is the shortcut.
        attention = self.softmax.apply(torch.bmm(q, k), self.ones) + self.identity
        v = x[..., 1:].reshape(Bh, HEAD_DIM, n, T - 1).permute(0, 2, 1, 3)
        mixed = torch.bmm(attention, v.reshape(Bh, n, HEAD_DIM * (T - 1)))
        mixed = mixed.reshape(Bh, n, HEAD_DIM, T - 1).permute(0, 2, 1, 3)
        return mixed.reshape(B, C, n, T - 1)


class MLP(nn.Module):
    """norm2 without its affine part, linear, exact GELU, linear."""

    def __init__(self, form: Form, weights: MLPWeights) -> None:
        super().__init__()
        self.norm = form.norm(weights.norm)
        self.fc1, self.fc2 = weights.fc1.pointwise(), weights.fc2.pointwise()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, n, M) -> (B, C, n, M)."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """One SepViT block; the stream enters and leaves as a map."""

    def __init__(self, form: Form, weights: BlockWeights, batch: int) -> None:
        super().__init__()
        self.windows, self.batch = weights.windows, batch
        self.dsa = form.dsa(form, weights.dsa, weights.windows, batch)
        self.psa = (
            form.psa(form, weights.psa, weights.windows, batch) if weights.psa is not None else None
        )
        self.proj = weights.proj.pointwise()
        self.mlp = form.mlp(form, weights.mlp)

    def cut(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, n, M)."""
        windows = self.windows
        sides = (windows.count, windows.pixels)
        return self.swapped(x, windows.side, windows.columns, sides)

    def joined(self, x: Tensor) -> Tensor:
        """(B, C, n, M) -> (B, C, H, W)."""
        windows = self.windows
        sides = (windows.rows * windows.side, windows.columns * windows.side)
        return self.swapped(x, windows.columns, windows.side, sides)

    def swapped(self, x: Tensor, first: int, second: int, sides: Sides) -> Tensor:
        """Swap the inner axes of (B rows of windows, first, second, ws C) (principle 1)."""
        if self.windows.count == 1:
            return x.reshape(self.batch, -1, *sides)
        # Rockchip's NPU can permute in front of the channels, and leaves it to the CPU behind them.
        C, rows = x.shape[1], self.batch * self.windows.rows
        x = x.permute(0, 2, 3, 1).reshape(-1, C)
        x = x.reshape(rows, first, second, self.windows.side * C)
        x = x.permute(0, 2, 1, 3).reshape(-1, C)
        return x.reshape(self.batch, *sides, -1).permute(0, 3, 1, 2)

    def forward(self, x: Tensor, taps: Taps, name: str) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
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
    """Final LayerNorm, mean over positions, classifier with the norm's affine part."""

    def __init__(self, form: Form, weights: HeadWeights, sides: Sides, batch: int) -> None:
        super().__init__()
        self.norm = form.norm(weights.norm)
        self.classifier = weights.classifier.linear()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes)."""
        return self.classifier(self.norm(x).mean((2, 3)))
