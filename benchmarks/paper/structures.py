"""The two-block structures of Swin, Twins and CSWin in the style of our edge form.

Weights come from timm's blocks (and `cswin.CSWinBlock`); the functions are the same (tests). They
get the care that SepViT gets: rows of rank 2, q, k and v as linears of their own, scales and the
affine parts of norms in weights, `bmm`, the residual in window order, masks as constants.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sepvit_edge.model.edge.folding import fold_behind_norm, fold_layer, fold_norm
from sepvit_edge.model.edge.form import Form
from sepvit_edge.model.edge.rows import MLP, swap
from sepvit_edge.model.edge.weights import LayerWeights, MLPWeights

from .cswin import CSWinBlock, Stripes

WINDOW = 7


def _mlp(form: Form, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear) -> MLP:
    behind = fold_behind_norm(norm, fc1)
    return MLP(form, MLPWeights(fold_norm(norm, affine=False), behind, fold_layer(fc2)))


def _parts(layer: LayerWeights, count: int) -> list[LayerWeights]:
    """Cut a layer's outputs into equal parts."""
    pairs = zip(layer.weight.chunk(count), layer.bias.chunk(count), strict=True)
    return [LayerWeights(weight, bias) for weight, bias in pairs]


class Attention(nn.Module):
    """Multi-head attention in groups of rows, with products of rank 3 (principle 6).

    Parameters
    ----------
    form : Form
        For its softmax.
    weights : list of LayerWeights
        Of q, k and v.
    heads, groups : int
        Heads, and groups that attend to themselves alone.
    bias : Tensor, optional
        Constant that is added to the scores, (1 or groups, heads, T, T).
    """

    def __init__(
        self,
        form: Form,
        weights: list[LayerWeights],
        heads: int,
        groups: int,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        q, k, v = weights
        scale = (len(q.weight) // heads) ** -0.5
        self.q = LayerWeights(q.weight * scale, q.bias * scale).linear()
        self.k, self.v = k.linear(), v.linear()
        self.softmax, self.heads, self.groups = form.softmax, heads, groups
        self.bias = None if bias is None else nn.Buffer(self.constant(bias.detach()))

    def constant(self, bias: Tensor) -> Tensor:
        """Give the bias the rank of the scores."""
        return bias.expand(self.groups, -1, -1, -1).flatten(0, 1).contiguous()

    def split(self, x: Tensor, *order: int) -> Tensor:
        """(groups T, C) -> (groups, heads, T, d) or, by the order, (groups, heads, d, T)."""
        return x.reshape(self.groups, -1, self.heads, x.shape[1] // self.heads).permute(order)

    def products(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(groups, heads, T, d), (..., d, T), (..., T, d) -> (groups, heads, T, d)."""
        scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1))
        scores = scores if self.bias is None else scores + self.bias
        y = torch.bmm(self.softmax.apply(scores, None), v.flatten(0, 1))
        return y.reshape(q.shape)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """Rows of the queries, and of keys and values -> rows of the queries."""
        return self.attended(self.q(x), self.k(keys), self.v(keys))

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend; see `forward`."""
        heads = self.split(q, 0, 2, 1, 3), self.split(k, 0, 2, 3, 1), self.split(v, 0, 2, 1, 3)
        return self.products(*heads).permute(0, 2, 1, 3).reshape(q.shape)


class RankFourAttention(Attention):
    """Attention with products of rank 4, for a bias beside which OpenVINO refuses rank 3."""

    def constant(self, bias: Tensor) -> Tensor:
        """Give the bias the rank of the scores."""
        return bias.contiguous()

    def products(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(groups, heads, T, d), (..., d, T), (..., T, d) -> (groups, heads, T, d)."""
        return self.softmax.apply(q @ k + self.bias, None) @ v


class WindowBlock(nn.Module):
    """Attention within windows and MLP: Swin's block without the shift, and Twins' LSA."""

    def __init__(self, form: Form, block: Any, side: int, bias: Tensor | None = None) -> None:
        super().__init__()
        self.norm = form.norm(fold_norm(block.norm1, affine=False))
        qkv = _parts(fold_behind_norm(block.norm1, block.attn.qkv), 3)
        # XNNPACK expands the operands of products of rank 4.
        rank_three = bias is None or form.name == "xnnpack"
        kind = Attention if rank_three else RankFourAttention
        self.attention = kind(form, qkv, block.attn.num_heads, (side // WINDOW) ** 2, bias)
        self.proj = fold_layer(block.attn.proj).linear()
        self.mlp = _mlp(form, block.norm2, block.mlp.fc1, block.mlp.fc2)
        self.count = side // WINDOW

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) in map order -> the same."""
        x = swap(x, self.count, WINDOW, self.count, WINDOW)
        y = self.norm(x)
        x = x + self.proj(self.attention(y, y))
        return swap(x + self.mlp(x), self.count, self.count, WINDOW, WINDOW)


class Swin(nn.Module):
    """Attention within windows, then within shifted ones."""

    def __init__(self, form: Form, first: Any, second: Any, side: int) -> None:
        super().__init__()
        self.side, self.shift = side, second.shift_size[0]
        self.first = WindowBlock(form, first, side, first.attn._get_rel_pos_bias())
        bias = second.attn._get_rel_pos_bias() + second.attn_mask[:, None]
        self.second = WindowBlock(form, second, side, bias)

    def rolled(self, x: Tensor, by: int) -> Tensor:
        """Move the map's rows and columns by some pixels, around its edges."""
        side, C = self.side, x.shape[1]
        x = x.reshape(side, side * C)
        x = torch.cat((x[by:], x[:by])).reshape(side, side, C)
        return torch.cat((x[:, by:], x[:, :by]), 1).reshape(side * side, C)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        x = self.rolled(self.first(x), self.shift)
        return self.rolled(self.second(x), self.side - self.shift)


class SubsampledBlock(nn.Module):
    """Attention of all pixels to a sub-sampled map, and MLP: Twins' GSA."""

    def __init__(self, form: Form, block: Any, side: int) -> None:
        super().__init__()
        attn, self.side = block.attn, side
        self.norm = form.norm(fold_norm(block.norm1, affine=False))
        # No padding: the norm's affine part goes into the convolution as into a linear.
        weight, norm = attn.sr.weight, block.norm1
        bias = attn.sr.bias + (weight * norm.bias[:, None, None]).sum((1, 2, 3))
        self.subsample = nn.Conv2d(
            len(weight), len(weight), attn.sr.kernel_size, stride=attn.sr.stride
        )
        self.subsample.weight = nn.Parameter(weight * norm.weight[:, None, None])
        self.subsample.bias = nn.Parameter(bias)
        self.key_norm = form.norm(fold_norm(attn.norm, affine=False))
        qkv = [fold_behind_norm(norm, attn.q), *_parts(fold_behind_norm(attn.norm, attn.kv), 2)]
        self.attention = Attention(form, qkv, attn.num_heads, 1)
        self.proj = fold_layer(attn.proj).linear()
        self.mlp = _mlp(form, block.norm2, block.mlp.fc1, block.mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        y = self.norm(x)
        keys = self.subsample(y.reshape(1, self.side, self.side, -1).permute(0, 3, 1, 2))
        keys = self.key_norm(keys.permute(0, 2, 3, 1).reshape(-1, x.shape[1]))
        x = x + self.proj(self.attention(y, keys))
        return x + self.mlp(x)


class Stripe(nn.Module):
    """One half of a CSWin block: attention within stripes, position encoding added."""

    def __init__(self, form: Form, weights: list[LayerWeights], half: Stripes, side: int) -> None:
        super().__init__()
        self.side, self.sides = side, (half.height, half.width)
        self.vertical = half.height == side
        self.count = side // min(self.sides)
        self.attention = Attention(form, weights, half.heads, self.count)
        self.lepe = fold_layer(half.lepe).convolution(groups=len(half.lepe.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) normed, in map order -> (rows, C / 2)."""
        if self.vertical:
            x = swap(x, 1, self.side, self.count, self.sides[1])
        v = self.attention.v(x)
        maps = v.reshape(self.count, *self.sides, -1).permute(0, 3, 1, 2)
        position = self.lepe(maps).permute(0, 2, 3, 1).reshape(v.shape)
        y = self.attention.attended(self.attention.q(x), self.attention.k(x), v) + position
        return swap(y, 1, self.count, self.side, self.sides[1]) if self.vertical else y


class CSWin(nn.Module):
    """One CSWin block."""

    def __init__(self, form: Form, block: CSWinBlock, side: int) -> None:
        super().__init__()
        self.norm = form.norm(fold_norm(block.norm1, affine=False))
        parts = _parts(fold_behind_norm(block.norm1, block.qkv), 6)  # halves of q, k, v in turn
        self.horizontal = Stripe(form, parts[0::2], block.horizontal, side)
        self.vertical = Stripe(form, parts[1::2], block.vertical, side)
        self.proj = fold_layer(block.proj).linear()
        self.mlp = _mlp(form, block.norm2, block.fc1, block.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        y = self.norm(x)
        x = x + self.proj(torch.cat((self.horizontal(y), self.vertical(y)), 1))
        return x + self.mlp(x)
