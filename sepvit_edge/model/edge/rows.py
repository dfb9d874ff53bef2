"""The layout of most runtimes: the stream is (rows, C), one row a pixel (principle 1)."""

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
    PSAWeights,
    Sides,
    Windows,
)

if TYPE_CHECKING:
    from .form import Form
    from .taps import Taps


class Stem(nn.Module):
    """The first patch embedding, from the pixels' map: strided convolution and LayerNorm."""

    def __init__(self, form: Form, weights: EmbeddingWeights) -> None:
        super().__init__()
        self.norm = form.norm(weights.norm)
        self.proj = weights.proj.convolution(stride=4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (rows, C)."""
        x = self.proj(x).permute(0, 2, 3, 1)
        return self.norm(x.reshape(-1, x.shape[3]))


class Embedding(nn.Module):
    """A later patch embedding, from the previous stage's rows."""

    def __init__(self, form: Form, weights: EmbeddingWeights, sides: Sides) -> None:
        super().__init__()
        self.sides = sides
        self.norm = form.norm(weights.norm)
        self.proj = weights.proj.convolution(stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) of the previous stage -> (rows, C)."""
        x = x.reshape(-1, *self.sides, x.shape[1]).permute(0, 3, 1, 2)
        x = self.proj(x).permute(0, 2, 3, 1)
        return self.norm(x.reshape(-1, x.shape[3]))


class PositionEncoding(nn.Module):
    """The depthwise convolution; "+ x" is in its centre tap (principle 4)."""

    def __init__(self, weights: LayerWeights, sides: Sides) -> None:
        super().__init__()
        self.sides = sides
        self.proj = weights.convolution(groups=len(weights.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        C = x.shape[1]
        x = x.reshape(-1, *self.sides, C).permute(0, 3, 1, 2)
        return self.proj(x).permute(0, 2, 3, 1).reshape(-1, C)


class DSA(nn.Module):
    """Attention within windows: norm1, tokens, heads, shortcut."""

    def __init__(self, form: Form, weights: DSAWeights, windows: Windows, batch: int) -> None:
        super().__init__()
        self.count, self.heads = batch * windows.count, weights.norm.width // HEAD_DIM
        self.norm = form.norm(weights.norm)
        self.q, self.k, self.v = weights.q.linear(), weights.k.linear(), weights.v.linear()
        self.tokens = windows.pixels + (weights.window_tokens is not None)
        self.softmax, self.ones = form.softmax, form.softmax.constant(self.tokens)
        self.window_tokens = weights.token_rows(batch)  # principle 3

    def with_tokens(self, x: Tensor) -> Tensor:
        """(B n M, C) normed, in window order -> (B n T, C)."""
        C, n, T = x.shape[1], self.count, self.tokens
        if self.window_tokens is None:
            return x
        return torch.cat((self.window_tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)

    def forward(self, x: Tensor) -> Tensor:
        """(B n M, C) in window order -> (B n T, C)."""
        return self.attended(self.with_tokens(self.norm(x)))

    def attended(self, x: Tensor) -> Tensor:
        """(B n T, C) normed -> the same, attention and shortcut added."""
        C, n, h, T = x.shape[1], self.count, self.heads, self.tokens
        # Principle 5: three linears, k straight to (d, T).
        q = self.q(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * h, T, HEAD_DIM)
        k = self.k(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 3, 1).reshape(n * h, HEAD_DIM, T)
        v = self.v(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * h, T, HEAD_DIM)
        y = torch.bmm(self.softmax.apply(torch.bmm(q, k), self.ones), v)  # principle 6
        return y.reshape(n, h, T, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * T, C) + x


class PSA(nn.Module):
    """Attention among windows, from their tokens; the windows' maps are the values."""

    def __init__(self, form: Form, weights: PSAWeights, windows: Windows, batch: int) -> None:
        super().__init__()
        self.batch, self.windows = batch, windows.count
        self.heads = weights.norm.width // HEAD_DIM
        self.norm = form.norm(weights.norm)
        self.q, self.k = weights.q.linear(), weights.k.linear()
        self.softmax, self.ones = form.softmax, form.softmax.constant(self.windows)
        self.identity = nn.Buffer(torch.eye(self.windows)[None])
        self.mixed = _mixed_in_one_image if batch == 1 else _mixed_in_several_images

    def forward(self, x: Tensor) -> Tensor:
        """(B n T, C) -> (B n M, C)."""
        x = x.reshape(self.batch * self.windows, -1, x.shape[1])
        # Principle 4: the identity is the shortcut.
        return self.mixture(self.attention(x) + self.identity, x)

    def attention(self, x: Tensor) -> Tensor:
        """(B n, T, C) -> weights (B h, n, n)."""
        B, n, h, C = self.batch, self.windows, self.heads, x.shape[2]
        tokens = F.gelu(self.norm(x[:, :1].reshape(B * n, C)))
        q = self.q(tokens).reshape(B, n, h, HEAD_DIM).permute(0, 2, 1, 3)
        k = self.k(tokens).reshape(B, n, h, HEAD_DIM).permute(0, 2, 3, 1)
        scores = self.products(q.reshape(B * h, n, HEAD_DIM), k.reshape(B * h, HEAD_DIM, n))
        return self.softmax.apply(scores, self.ones)

    def products(self, q: Tensor, k: Tensor) -> Tensor:
        """(B h, n, d), (B h, d, n) -> scores (B h, n, n)."""
        return torch.bmm(q, k)

    def mixture(self, attention: Tensor, x: Tensor) -> Tensor:
        """(B h, n, n), (B n, T, C) -> mixed pixels (B n M, C)."""
        B, n, h, M, C = self.batch, self.windows, self.heads, x.shape[1] - 1, x.shape[2]
        v = x[:, 1:].reshape(B * n, M, h, HEAD_DIM)
        return self.mixed(attention, v, B).reshape(B * n * M, C)


class HalvedPSA(PSA):
    """PSA whose product of one head alone is two products, of half the queries each.

    LiteRT's converter turns a product of one matrix with another into a fully connected layer,
    and its XNNPACK delegate takes none whose weights change.
    """

    def products(self, q: Tensor, k: Tensor) -> Tensor:
        """(B h, n, d), (B h, d, n) -> scores (B h, n, n)."""
        if len(q) > 1:
            return torch.bmm(q, k)
        n = q.shape[1]
        return torch.bmm(q.reshape(2, n // 2, HEAD_DIM), k.expand(2, -1, -1)).reshape(1, n, n)


def _mixed_in_one_image(attention: Tensor, v: Tensor, batch: int) -> Tensor:
    """(h, n, n) products with (n, M, h, d): one permutation before, and one behind."""
    n, M, h, _ = v.shape
    v = v.permute(2, 0, 1, 3)
    mixed = torch.bmm(attention, v.reshape(h, n, M * HEAD_DIM))
    return mixed.reshape(h, n, M, HEAD_DIM).permute(1, 2, 0, 3)


def _mixed_in_several_images(attention: Tensor, v: Tensor, batch: int) -> Tensor:
    """(B h, n, n) products with (B n, M, h, d).

    (B, n) and (M, d) cannot be merged in one permutation of rank 4 (principle 1).
    """
    B, n, M, h = batch, len(v) // batch, v.shape[1], v.shape[2]
    v = v.permute(0, 2, 1, 3).reshape(B, n, h, M * HEAD_DIM).permute(0, 2, 1, 3)
    mixed = torch.bmm(attention, v.reshape(B * h, n, M * HEAD_DIM))
    mixed = mixed.reshape(B, h, n, M * HEAD_DIM).permute(0, 2, 1, 3)
    return mixed.reshape(B * n, h, M, HEAD_DIM).permute(0, 2, 1, 3)


class MLP(nn.Module):
    """norm2 without its affine part, linear, exact GELU, linear."""

    def __init__(self, form: Form, weights: MLPWeights) -> None:
        super().__init__()
        self.norm = form.norm(weights.norm)
        self.fc1, self.fc2 = weights.fc1.linear(), weights.fc2.linear()

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


def swap(x: Tensor, rows: int, first: int, second: int, ws: int) -> Tensor:
    """(rows * first * second * ws, C) -> the same with the axes first and second swapped."""
    C = x.shape[1]
    x = x.reshape(rows, first, second, ws * C)
    return x.permute(0, 2, 1, 3).reshape(-1, C)


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
        """Swap the inner axes of (B rows of windows, first, second, ws C) (principle 1)."""
        if self.windows.count == 1:
            return x
        return swap(x, self.batch * self.windows.rows, first, second, self.windows.side)

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
    """Final LayerNorm, mean over positions, classifier with the norm's affine part."""

    def __init__(self, form: Form, weights: HeadWeights, sides: Sides, batch: int) -> None:
        super().__init__()
        self.batch, self.positions = batch, sides[0] * sides[1]
        self.norm = form.norm(weights.norm)
        self.classifier = weights.classifier.linear()

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (B, classes)."""
        C = x.shape[1]
        # The axis is kept, or Vulkan takes no mean.
        x = self.norm(x).reshape(self.batch, self.positions, C).mean(1, keepdim=True)
        return self.classifier(x.reshape(self.batch, C))


class MapMeanHead(nn.Module):
    """The head for XNNPACK, which averages over the last two of four axes only."""

    def __init__(self, form: Form, weights: HeadWeights, sides: Sides, batch: int) -> None:
        super().__init__()
        self.batch, self.sides = batch, sides
        self.norm = form.norm(weights.norm)
        self.classifier = weights.classifier.linear()

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (B, classes)."""
        C = x.shape[1]
        x = self.norm(x).reshape(self.batch, *self.sides, C).permute(0, 3, 1, 2)
        return self.classifier(x.mean((2, 3), keepdim=True).reshape(self.batch, C))
