"""The edge form: what reference.py computes, from the same state dict, for static-graph compilers.

Shapes in comments: B images (static), n windows of M = ws * ws pixels an image, T = M or M + 1
tokens a window, C channels, h heads of d = 32. The stream between parts is (rows, C): one row a
pixel, images one behind the other; with principle 11 it is (B, C, H, W).

Each principle below has a number, and the number stands where it is applied. What each is worth is
measured by `python benchmarks/edge_form.py`; README has the table.

1. Rank 4 at most, and a rank-2 stream. Core ML ends at rank 5 and several NPUs at 4; a window is
   cut by one rank-4 permutation because (ws, C) is contiguous and needs no axis of its own.
2. Everything is static. Shapes are Python integers when the graph is traced, so that no shape,
   gather or index arithmetic is left in it.
3. What does not depend on the input is computed here, once: window tokens after norm1 are a
   constant, concatenated; batch and scale are already in it.
4. Constant scales live in weights: 1 / sqrt(d) in q, 1 / (255 std) in the first convolution, the
   affine part of a LayerNorm that feeds one linear in that linear, "+ x" of the position encoding
   in its centre tap, PSA's shortcut as the identity added to the attention matrix.
5. q, k and v are three linears, and k is permuted straight to (d, T): slicing one fused product
   costs a copy on every runtime.
6. Attention is `bmm` of rank 3. XNNPACK expands the operands of rank-4 products, and OpenVINO
   2026.4.1 miscompiles `scaled_dot_product_attention` with one head.
7. The residual stays in window order through a block: two permutations a block, not four.
8. LayerNorm is the runtime's own where it has one (`layer_norm="native"`). XNNPACK has none: there
   its means are products with a constant 1/C (`"linear"`), which keeps the model one delegate.
   Ethos-U adds up a row in 32-bit passes over all of it: there a softmax's sum is a product with
   ones as well (`softmax="linear"`), and a norm's square is a power (`layer_norm="lookup"`): one
   table of 256 entries, where a product of a tensor with itself is three passes.
9. Where a permutation costs more than a product (Ethos-U), each head has linears of its own
   (`heads="linears"`): nothing is cut out of anything, and what the heads give stands side by side.
10. Ethos-U swaps two axes of three in one pass, and needs up to five for the inner two of four:
   there each row of windows is cut by a permutation of its own (`windows="by-row"`).
11. A unit that keeps a map as channels of (H, W) computes a linear as a 1 x 1 convolution of it,
   and transposes rows in front of each one and behind it (Rockchip, where rows that are no multiple
   of 16 go to the CPU for that). There the stream is a map, or (B, C, n, M) within a block, and
   every linear is written as that convolution (`stream="channels-first"`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SepViTError
from .reference import (
    ConditionalPositionEncoding,
    DepthwiseSeparableSelfAttention,
    OverlappingPatchEmbedding,
    SepViT,
    SepViTBlock,
)
from .variants import HEAD_DIM


@dataclass(frozen=True)
class EdgeOptions:
    """The switches of the edge form; each exists because one runtime was measured to need it.

    Attributes
    ----------
    input : str
        ``"uint8-nhwc"``: pixels as decoders give them. ``"float32-nchw"``: the same values 0-255
        for runtimes that convert no integers.
    layer_norm : str
        ``"native"``, ``"linear"`` or ``"lookup"`` (principle 8).
    softmax : str
        ``"native"`` or ``"linear"`` (principle 8).
    classifier : str
        Weights of a quantised classifier, whose logits stay float: ``"int8"``, or ``"float"`` for
        XNNPACK, which has no int8 product with a float result.
    heads : str
        ``"permuted"`` in front of the tokens, or ``"linears"`` of their own (principle 9).
    windows : str
        Cut ``"at-once"``, or ``"by-row"`` of windows (principle 10).
    stem : str
        The first convolution as it is, ``"stride-4"``; or ``"stride-2"`` with every other row and
        column dropped, for units whose strides end at 3 (Ethos-U55): four times its work.
    stream : str
        What is between the layers: ``"rows"``, or maps, ``"channels-first"`` (principle 11), which
        go with the defaults of `layer_norm`, `heads`, `windows` and `stem` only.

    Raises
    ------
    SepViTError
        If the switches do not go together.
    """

    input: Literal["uint8-nhwc", "float32-nchw"] = "uint8-nhwc"
    layer_norm: Literal["native", "linear", "lookup"] = "native"
    classifier: Literal["int8", "float"] = "int8"
    softmax: Literal["native", "linear"] = "native"
    heads: Literal["permuted", "linears"] = "permuted"
    windows: Literal["at-once", "by-row"] = "at-once"
    stem: Literal["stride-4", "stride-2"] = "stride-4"
    stream: Literal["rows", "channels-first"] = "rows"

    def __post_init__(self) -> None:
        if not self.channels_first:
            return
        for name in ("layer_norm", "heads", "windows", "stem"):
            if getattr(self, name) != getattr(EdgeOptions, name):
                raise SepViTError(
                    f'the switches of the edge form: {name} = "{getattr(self, name)}" does not go '
                    f'with stream = "channels-first"; leave one of them out'
                )

    @property
    def channels_first(self) -> bool:
        """Whether the stream is a map."""
        return self.stream == "channels-first"


_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


def _frozen(values: Tensor | None) -> nn.Parameter:
    """A float32 parameter of its own with these values."""
    assert values is not None
    return nn.Parameter(values.detach().to(torch.float32, copy=True).contiguous(), False)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    linear.weight, linear.bias = _frozen(weight), _frozen(bias)
    return linear


def _pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """The linear as a 1 x 1 convolution (principle 11)."""
    conv = nn.utils.skip_init(nn.Conv2d, weight.shape[1], weight.shape[0], 1)
    conv.weight, conv.bias = _frozen(weight[:, :, None, None]), _frozen(bias)
    return conv


def _maker(options: EdgeOptions) -> Callable[[Tensor, Tensor], nn.Linear | nn.Conv2d]:
    """What makes a layer of the stream of a weight and a bias."""
    return _pointwise if options.channels_first else _linear


def _in_stream(linear: nn.Linear, options: EdgeOptions) -> nn.Linear | nn.Conv2d:
    """A frozen copy of a linear, for the stream that it computes in."""
    return _maker(options)(linear.weight, linear.bias)


def _own(layer: _Layer) -> _Layer:
    """A frozen copy: what is done to an edge model is not done to the reference."""
    return copy.deepcopy(layer).requires_grad_(False)


def _fold_affine(norm: nn.LayerNorm, linear: nn.Linear) -> nn.Linear:
    """Linear that follows a LayerNorm, with the norm's affine part in it (principle 4)."""
    weight = linear.weight.double()
    return _linear(weight * norm.weight.double(), linear.bias + weight @ norm.bias.double())


class LayerNorm(nn.Module):
    """LayerNorm over the rows of (rows, C); `affine=False` where a linear has taken that part."""

    def __init__(self, norm: nn.LayerNorm, options: EdgeOptions, affine: bool = True) -> None:
        super().__init__()
        self.dim, self.eps = norm.weight.numel(), norm.eps
        self.linear = options.layer_norm != "native"
        self.lookup = options.layer_norm == "lookup"
        self.channels_first = options.channels_first
        self.weight = _frozen(norm.weight) if affine else None
        self.bias = _frozen(norm.bias) if affine else None
        if self.linear:
            self.average = nn.Buffer(torch.full((1, self.dim), 1 / self.dim))
            self.epsilon = nn.Buffer(torch.full((1,), self.eps))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C), or (B, C, H, W) -> (B, C, H, W)."""
        if self.channels_first:
            x = x.permute(0, 2, 3, 1)
            x = F.layer_norm(x, (self.dim,), self.weight, self.bias, self.eps)
            return x.permute(0, 3, 1, 2)
        if not self.linear:
            return F.layer_norm(x, (self.dim,), self.weight, self.bias, self.eps)
        centred = x - F.linear(x, self.average)
        squares = centred.pow(2) if self.lookup else centred * centred
        x = centred * torch.rsqrt(F.linear(squares, self.average, self.epsilon))
        return x if self.weight is None or self.bias is None else x * self.weight + self.bias


def _ones(width: int, options: EdgeOptions) -> nn.Buffer | None:
    """What `_softmax` multiplies rows of a width by, where it is written as products."""
    return nn.Buffer(torch.ones(1, width)) if options.softmax == "linear" else None


def _softmax(x: Tensor, ones: Tensor | None) -> Tensor:
    """Softmax over the last axis (principle 8)."""
    if ones is None:
        return torch.softmax(x, -1)
    x = torch.exp(x - x.amax(-1, keepdim=True))
    return x * torch.reciprocal(F.linear(x, ones))


def _head_linears(weight: Tensor, bias: Tensor) -> nn.ModuleList:
    """Linears (C -> d), one a head (principle 9)."""
    pairs = zip(weight.split(HEAD_DIM), bias.split(HEAD_DIM), strict=True)
    return nn.ModuleList(_linear(w, b) for w, b in pairs)


def _pieces(x: Tensor, count: int, axis: int) -> list[Tensor]:
    """Cut an axis into equal slices."""
    width = x.shape[axis] // count
    return [x.narrow(axis, i * width, width) for i in range(count)] if count > 1 else [x]


def _product(q: Tensor, k: Tensor) -> Tensor:
    """(n, T, d), (n, T, d) -> (n, T, T).

    k is transposed by a permutation of rank 4, which Vela sees to be what its products want.
    """
    n, T, d = k.shape
    return torch.bmm(q, k.reshape(1, n, T, d).permute(0, 1, 3, 2).reshape(n, d, T))


def _joined(pieces: list[Tensor], axis: int) -> Tensor:
    return torch.cat(pieces, axis) if len(pieces) > 1 else pieces[0]


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (rows, C), which rows are already: how parts are compared."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) if x.ndim == 4 else x


class Input(nn.Module):
    """Pixels 0-255 to what the first convolution takes: (B, 3, size, size), mean subtracted.

    Zero padding is zero after normalisation, so the mean has to be subtracted in the graph; the
    scale is in the convolution's weights (principle 4).
    """

    def __init__(self, mean: tuple[float, ...], options: EdgeOptions) -> None:
        super().__init__()
        self.interleaved = options.input == "uint8-nhwc"
        self.mean = nn.Buffer(torch.tensor(mean).reshape(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels in the layout of `EdgeOptions.input` -> (B, 3, size, size)."""
        if self.interleaved:
            pixels = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return pixels - self.mean


class PatchEmbedding(nn.Module):
    """Strided convolution and LayerNorm, from the previous stage's rows or the input's map."""

    def __init__(
        self,
        embed: OverlappingPatchEmbedding,
        side: int | None,
        input_std: tuple[float, ...] | None,
        options: EdgeOptions,
    ) -> None:
        super().__init__()
        self.side, self.norm = side, LayerNorm(embed.norm, options)
        self.channels_first = options.channels_first
        self.every_other = False
        if input_std is None:
            self.proj = _own(embed.proj)
        else:  # principle 4
            scale = torch.tensor(input_std, dtype=torch.float64).reshape(1, 3, 1, 1) * 255
            self.every_other = options.stem == "stride-2"
            stride = 2 if self.every_other else 4
            self.proj = nn.utils.skip_init(nn.Conv2d, 3, embed.proj.out_channels, 7, stride, 3)
            self.proj.weight = _frozen(embed.proj.weight / scale)
            self.proj.bias = _frozen(embed.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), or the stream of the previous stage -> the stream."""
        if self.channels_first:
            return cast(Tensor, self.norm(self.proj(x)))
        if self.side is not None:
            x = x.reshape(-1, self.side, self.side, x.shape[1]).permute(0, 3, 1, 2)
        x = self.proj(x).permute(0, 2, 3, 1)
        C, half = x.shape[3], x.shape[1] // 2
        if self.every_other:
            # Rows, then columns: both at once come out wrong of the Arm backend for Ethos-U55.
            x = x.reshape(-1, 4 * half * C).narrow(1, 0, 2 * half * C)
            x = x.reshape(-1, 2 * C).narrow(1, 0, C)
        return self.norm(x.reshape(-1, C))


class PositionEncoding(nn.Module):
    """The depthwise convolution with "+ x" as one more unit in its centre tap (principle 4)."""

    def __init__(self, conv: nn.Conv2d, side: int, options: EdgeOptions) -> None:
        super().__init__()
        self.side, self.channels_first = side, options.channels_first
        weight = conv.weight.detach().clone()
        weight[:, :, 1, 1] += 1
        dim = conv.out_channels
        self.proj = nn.utils.skip_init(nn.Conv2d, dim, dim, 3, padding=1, groups=dim)
        self.proj.weight = _frozen(weight)
        self.proj.bias = _frozen(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C), or (B, C, H, W) -> (B, C, H, W)."""
        if self.channels_first:
            return cast(Tensor, self.proj(x))
        C = x.shape[1]
        x = x.reshape(-1, self.side, self.side, C).permute(0, 3, 1, 2)
        return self.proj(x).permute(0, 2, 3, 1).reshape(-1, C)


class DSA(nn.Module):
    """Attention within windows: norm1, tokens, heads, shortcut."""

    def __init__(self, block: SepViTBlock, batch: int, options: EdgeOptions) -> None:
        super().__init__()
        attn, dim = block.attn, block.norm1.weight.numel()
        self.heads, self.batch = attn.heads, batch
        self.count = batch * (block.side // block.ws) ** 2
        self.tokens = block.ws**2 + block.separable
        self.norm = LayerNorm(block.norm1, options)
        weights, biases = attn.DSA_qkv.weight.split(dim), attn.DSA_qkv.bias.split(dim)
        scale = HEAD_DIM**-0.5
        self.own_linears, self.channels_first = options.heads == "linears", options.channels_first
        make = _head_linears if self.own_linears else _maker(options)
        self.q = make(weights[0] * scale, biases[0] * scale)
        self.k, self.v = make(weights[1], biases[1]), make(weights[2], biases[2])
        self.ones = _ones(self.tokens, options)
        self.separable = block.separable
        if self.separable:
            token = block.norm1(block.win_tokens).detach()[0].repeat(batch, 1, 1)
            if self.channels_first:
                token = token.reshape(batch, -1, dim, 1).transpose(1, 2).contiguous()
            self.window_tokens = nn.Buffer(token)  # (B n, 1, C) or (B, C, n, 1), principle 3

    def forward(self, x: Tensor) -> Tensor:
        """(B n M, C) in window order -> (B n T, C), or (B, C, n, M) -> (B, C, n, T)."""
        if self.channels_first:
            return self._by_channel(x)
        C, n, h, T = x.shape[1], self.count, self.heads, self.tokens
        x = self.norm(x)
        if self.separable:
            x = torch.cat((self.window_tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)
        if self.own_linears:
            return self._by_head(x) + x
        q = self.q(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * h, T, HEAD_DIM)
        k = self.k(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 3, 1).reshape(n * h, HEAD_DIM, T)
        v = self.v(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * h, T, HEAD_DIM)
        y = torch.bmm(_softmax(torch.bmm(q, k), self.ones), v)
        return y.reshape(n, h, T, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * T, C) + x

    def _by_channel(self, x: Tensor) -> Tensor:
        """(B, C, n, M) -> (B, C, n, T) (principle 11)."""
        x = self.norm(x)
        if self.separable:
            x = torch.cat((self.window_tokens, x), 3)
        n, T, Bh = x.shape[2], self.tokens, self.batch * self.heads
        q = self.q(x).reshape(Bh, HEAD_DIM, n, T).permute(0, 2, 3, 1).reshape(-1, T, HEAD_DIM)
        k = self.k(x).reshape(Bh, HEAD_DIM, n, T).permute(0, 2, 1, 3).reshape(-1, HEAD_DIM, T)
        v = self.v(x).reshape(Bh, HEAD_DIM, n, T).permute(0, 2, 3, 1).reshape(-1, T, HEAD_DIM)
        y = torch.bmm(_softmax(torch.bmm(q, k), self.ones), v)
        return y.reshape(Bh, n, T, HEAD_DIM).permute(0, 3, 1, 2).reshape(x.shape) + x

    def _by_head(self, x: Tensor) -> Tensor:
        """Attention of (B n T, C), head by head (principle 9)."""
        shape = (self.count, self.tokens, HEAD_DIM)
        queries, keys, values = (
            [linear(x).reshape(shape) for linear in cast(nn.ModuleList, linears)]
            for linears in (self.q, self.k, self.v)
        )
        scores = _joined([_product(q, k) for q, k in zip(queries, keys, strict=True)], 0)
        weights = _pieces(_softmax(scores, self.ones), self.heads, 0)
        mixed = [torch.bmm(a, v) for a, v in zip(weights, values, strict=True)]
        return _joined(mixed, 2).reshape(x.shape)


class PSA(nn.Module):
    """Attention among windows, from their tokens; the windows' maps are the values."""

    def __init__(
        self, attn: DepthwiseSeparableSelfAttention, batch: int, windows: int, options: EdgeOptions
    ) -> None:
        super().__init__()
        dim = attn.proj.in_features
        self.heads, self.batch, self.windows = attn.heads, batch, windows
        self.norm = LayerNorm(attn.win_tokens_norm, options)
        weights, biases = attn.PSA_qk.weight.split(dim), attn.PSA_qk.bias.split(dim)
        scale = HEAD_DIM**-0.5
        self.own_linears, self.channels_first = options.heads == "linears", options.channels_first
        make = _head_linears if self.own_linears else _maker(options)
        self.q = make(weights[0] * scale, biases[0] * scale)
        self.k = make(weights[1], biases[1])
        self.ones = _ones(windows, options)
        self.identity = nn.Buffer(torch.eye(windows)[None])

    def forward(self, x: Tensor) -> Tensor:
        """(B n T, C) -> (B n M, C), or (B, C, n, T) -> (B, C, n, M)."""
        if self.channels_first:
            return self._by_channel(x)
        B, n, h, C = self.batch, self.windows, self.heads, x.shape[1]
        x = x.reshape(B * n, -1, C)
        M = x.shape[1] - 1
        tokens = F.gelu(self.norm(x[:, :1].reshape(B * n, C)))
        if self.own_linears:
            return self._by_head(tokens, x[:, 1:])
        q = self.q(tokens).reshape(B, n, h, HEAD_DIM).permute(0, 2, 1, 3)
        k = self.k(tokens).reshape(B, n, h, HEAD_DIM).permute(0, 2, 3, 1)
        attention = torch.bmm(q.reshape(B * h, n, HEAD_DIM), k.reshape(B * h, HEAD_DIM, n))
        attention = _softmax(attention, self.ones) + self.identity
        v = x[:, 1:].reshape(B * n, M, h, HEAD_DIM)
        if B == 1:
            v = v.permute(2, 0, 1, 3)
            mixed = torch.bmm(attention, v.reshape(h, n, M * HEAD_DIM))
            mixed = mixed.reshape(h, n, M, HEAD_DIM).permute(1, 2, 0, 3)
        else:  # (B, n) and (M, d) cannot be merged in one permutation of rank 4
            v = v.permute(0, 2, 1, 3).reshape(B, n, h, M * HEAD_DIM).permute(0, 2, 1, 3)
            mixed = torch.bmm(attention, v.reshape(B * h, n, M * HEAD_DIM))
            mixed = mixed.reshape(B, h, n, M * HEAD_DIM).permute(0, 2, 1, 3)
            mixed = mixed.reshape(B * n, h, M, HEAD_DIM).permute(0, 2, 1, 3)
        return mixed.reshape(B * n * M, C)

    def _by_channel(self, x: Tensor) -> Tensor:
        """(B, C, n, T) -> (B, C, n, M) (principle 11)."""
        B, C, n, T = x.shape
        Bh = B * self.heads
        tokens = F.gelu(self.norm(x[..., :1]))
        q = self.q(tokens).reshape(Bh, HEAD_DIM, n).permute(0, 2, 1)
        k = self.k(tokens).reshape(Bh, HEAD_DIM, n)
        attention = _softmax(torch.bmm(q, k), self.ones) + self.identity
        v = x[..., 1:].reshape(Bh, HEAD_DIM, n, T - 1).permute(0, 2, 1, 3)
        mixed = torch.bmm(attention, v.reshape(Bh, n, HEAD_DIM * (T - 1)))
        mixed = mixed.reshape(Bh, n, HEAD_DIM, T - 1).permute(0, 2, 1, 3)
        return mixed.reshape(B, C, n, T - 1)

    def _by_head(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Mix (B n, M, C) by (B n, C) tokens, head by head (principle 9)."""
        B, n, h, M = self.batch, self.windows, self.heads, x.shape[1]
        queries, keys = (
            [linear(tokens).reshape(B, n, HEAD_DIM) for linear in cast(nn.ModuleList, linears)]
            for linears in (self.q, self.k)
        )
        scores = _joined([_product(q, k) for q, k in zip(queries, keys, strict=True)], 0)
        weights = _pieces(_softmax(scores, self.ones) + self.identity, h, 0)
        values = [v.reshape(B, n, M * HEAD_DIM) for v in _pieces(x, h, 2)]
        mixed = [torch.bmm(a, v) for a, v in zip(weights, values, strict=True)]
        return _joined([y.reshape(B * n, M, HEAD_DIM) for y in mixed], 2).reshape(B * n * M, -1)


class MLP(nn.Module):
    """norm2 without its affine part, linear, exact GELU, linear."""

    def __init__(self, block: SepViTBlock, options: EdgeOptions) -> None:
        super().__init__()
        self.norm = LayerNorm(block.norm2, options, affine=False)
        self.fc1 = _in_stream(_fold_affine(block.norm2, block.mlp.fc1), options)
        self.fc2 = _in_stream(block.mlp.fc2, options)

    def forward(self, x: Tensor) -> Tensor:
        """Stream -> stream."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """One SepViT block; the stream enters and leaves in map order."""

    def __init__(self, block: SepViTBlock, batch: int, options: EdgeOptions) -> None:
        super().__init__()
        self.groups, self.ws, self.batch = block.side // block.ws, block.ws, batch
        self.by_row = options.windows == "by-row"
        self.dsa = DSA(block, batch, options)
        self.psa = PSA(block.attn, batch, self.groups**2, options) if block.separable else None
        self.channels_first = options.channels_first
        self.proj = _in_stream(block.attn.proj, options)
        self.mlp = MLP(block, options)

    def _permuted(self, x: Tensor, first: int, second: int) -> Tensor:
        """Swap the two inner axes of (B groups, first, second, ws C): cuts and joins windows."""
        if self.groups == 1:
            return x
        C, rows = x.shape[1], self.batch * self.groups
        x = x.reshape(rows, first, second, self.ws * C)
        pieces = _pieces(x, rows, 0) if self.by_row else [x]
        return _joined([piece.permute(0, 2, 1, 3) for piece in pieces], 0).reshape(-1, C)

    def _reordered(self, x: Tensor, axes: tuple[int, int], sides: tuple[int, int]) -> Tensor:
        """Rows permuted; or a map of those, with new sides (principle 11)."""
        if not self.channels_first:
            return self._permuted(x, *axes)
        if self.groups == 1:
            return x.reshape(self.batch, -1, *sides)
        # Rockchip's NPU can permute in front of the channels, and leaves it to the CPU behind them.
        x = self._permuted(_rows(x), *axes)
        return x.reshape(self.batch, *sides, -1).permute(0, 3, 1, 2)

    def _windows(self, x: Tensor) -> Tensor:
        """Map order -> window order, or (B, C, H, W) -> (B, C, n, M)."""
        return self._reordered(x, (self.ws, self.groups), (self.groups**2, self.ws**2))

    def _map(self, x: Tensor) -> Tensor:
        """Window order -> map order, or (B, C, n, M) -> (B, C, H, W)."""
        side = self.groups * self.ws
        return self._reordered(x, (self.groups, self.ws), (side, side))

    def forward(self, x: Tensor, taps: dict[str, Tensor] | None, name: str) -> Tensor:
        """Stream -> stream; with `taps`, the parts' outputs are put into it."""
        x = self._windows(x)
        y = self.dsa(x)
        if taps is not None:
            taps[f"{name}.dsa"] = _rows(y)
        if self.psa is not None:
            y = self.psa(y)
            if taps is not None:
                taps[f"{name}.psa"] = _rows(y)
        x = x + self.proj(y)
        if taps is not None:
            taps[f"{name}.proj"] = _rows(self._map(x))
        x = x + self.mlp(x)
        x = self._map(x)
        if taps is not None:
            taps[f"{name}.mlp"] = _rows(x)
        return x


class Stage(nn.Module):
    """Patch embedding, then blocks with the position encoding after the first."""

    def __init__(self, model: SepViT, index: int, batch: int, options: EdgeOptions) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(
            cast(OverlappingPatchEmbedding, model.patch_embeds[index]),
            model.sides[index - 1] if index > 0 else None,
            model.config.preprocessing.std if index == 0 else None,
            options,
        )
        blocks = cast(nn.ModuleList, model.blocks[index])
        self.blocks = nn.ModuleList(Block(cast(SepViTBlock, b), batch, options) for b in blocks)
        cpe = cast(ConditionalPositionEncoding, model.pos_block[index])
        self.cpe = PositionEncoding(cast(nn.Conv2d, cpe.proj[0]), model.sides[index], options)

    def forward(self, x: Tensor, taps: dict[str, Tensor] | None, name: str) -> Tensor:
        """The previous stage's stream, or the input's map -> the stream."""
        x = self.patch_embedding(x)
        if taps is not None:
            taps[f"{name}.patch_embedding"] = _rows(x)
        for index, block in enumerate(self.blocks):
            x = block(x, taps, f"{name}.blocks.{index}")
            if index == 0:
                x = self.cpe(x)
                if taps is not None:
                    taps[f"{name}.cpe"] = _rows(x)
        return x


class Head(nn.Module):
    """Final LayerNorm, mean over positions, classifier with the norm's affine part."""

    def __init__(self, model: SepViT, batch: int, options: EdgeOptions) -> None:
        super().__init__()
        self.batch, self.side, self.linear = batch, model.sides[-1], options.layer_norm != "native"
        self.norm = LayerNorm(model.norm, options, affine=False)
        self.channels_first = options.channels_first
        self.lookup = options.layer_norm == "lookup"
        if self.lookup:  # a product too: the Arm backend has no integer mean of this kind
            self.average = nn.Buffer(torch.full((batch, 1, self.side**2), self.side**-2))
        self.classifier = _fold_affine(model.norm, model.head)

    def forward(self, x: Tensor) -> Tensor:
        """Stream -> (B, classes)."""
        C = x.shape[1]
        x = self.norm(x)
        if self.channels_first:
            return cast(Tensor, self.classifier(x.mean((2, 3))))
        if self.lookup:
            x = torch.bmm(self.average, x.reshape(self.batch, self.side**2, C))
            return self.classifier(x.reshape(self.batch, C))
        if self.linear:  # XNNPACK averages over the last two of four axes only
            x = x.reshape(self.batch, self.side, self.side, C).permute(0, 3, 1, 2)
            return self.classifier(x.mean((2, 3), keepdim=True).reshape(self.batch, C))
        x = x.reshape(self.batch, self.side**2, C).mean(1, keepdim=True)  # or Vulkan takes no mean
        return self.classifier(x.reshape(self.batch, C))


class EdgeModel(nn.Module):
    """The edge form of a reference model, for one batch and image size.

    Parameters
    ----------
    model : SepViT
        The reference; weights that no principle changes are shared with it.
    batch : int
        Images a call, fixed in the graph.
    options : EdgeOptions
        The switches.
    taps : bool
        Also return the output of every part (`tap_names`), for parity by block.
    """

    def __init__(
        self,
        model: SepViT,
        batch: int = 1,
        options: EdgeOptions | None = None,
        taps: bool = False,
    ) -> None:
        super().__init__()
        options = options or EdgeOptions()
        self.config, self.batch, self.options = model.config, batch, options
        self.input = Input(model.config.preprocessing.mean, options)
        self.stages = nn.ModuleList(Stage(model, i, batch, options) for i in range(4))
        self.head = Head(model, batch, options)
        self.taps = taps
        self.eval()

    @property
    def tap_names(self) -> list[str]:
        """Names of the outputs after the logits, in order."""
        if not self.taps:
            return []
        names = []
        for i, stage in enumerate(self.stages):
            names.append(f"stages.{i}.patch_embedding")
            for j, block in enumerate(cast(Stage, stage).blocks):
                parts = ["dsa", "psa", "proj", "mlp"]
                if cast(Block, block).psa is None:
                    parts.remove("psa")
                names += [f"stages.{i}.blocks.{j}.{part}" for part in parts]
                names += [f"stages.{i}.cpe"] if j == 0 else []
        return names

    def example_input(self) -> Tensor:
        """Zero pixels of the shape and dtype that `forward` takes."""
        size = self.config.image_size
        if self.options.input == "uint8-nhwc":
            return torch.zeros(self.batch, size, size, 3, dtype=torch.uint8)
        return torch.zeros(self.batch, 3, size, size)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Classify RGB pixels 0-255.

        Parameters
        ----------
        pixels : Tensor
            uint8 (B, size, size, 3) or float32 (B, 3, size, size), by `options.input`.

        Returns
        -------
        Tensor or tuple of Tensor
            Logits (B, num_classes), followed by the taps where they were asked for.
        """
        taps: dict[str, Tensor] | None = {} if self.taps else None
        x = self.input(pixels)
        for i, stage in enumerate(self.stages):
            x = stage(x, taps, f"stages.{i}")
        logits = self.head(x)
        if taps is None:
            return logits
        return (logits, *(taps[name] for name in self.tap_names))


def set_batch(edge: EdgeModel, batch: int) -> None:
    """Change the number of images a call in place; for training, where the last batch is smaller.

    A traced graph keeps the batch that it was traced with.
    """
    before = edge.batch
    for module in edge.modules():
        if isinstance(module, DSA):
            module.count = module.count // before * batch
            if module.separable:
                windows = len(module.window_tokens) // before
                tokens = module.window_tokens[:windows]
                module.window_tokens = nn.Buffer(torch.cat([tokens] * batch))
        if isinstance(module, (DSA, PSA, Block, Head, EdgeModel)):
            module.batch = batch


def reference_key(layer: str) -> str:
    """Name of the reference's weight that a linear or convolution of the edge form came from.

    Parameters
    ----------
    layer : str
        Module name in an `EdgeModel`, as ``stages.2.blocks.4.psa.q``.
    """
    if layer == "head.classifier":
        return "head.weight"
    _, stage, kind, *rest = layer.split(".")
    if kind == "patch_embedding":
        return f"patch_embeds.{stage}.proj.weight"
    if kind == "cpe":
        return f"pos_block.{stage}.proj.0.weight"
    index, part = rest[0], ".".join(rest[1:])
    part = {"dsa": "attn.DSA_qkv", "psa": "attn.PSA_qk", "pro": "attn.proj"}.get(part[:3], part)
    return f"blocks.{stage}.{index}.{part}.weight"


def unfold(edge: EdgeModel, model: SepViT) -> dict[str, Tensor]:
    """State dict of the reference model that computes what an edge model computes.

    The inverse of the folding above. What was folded away for good is neutral in the result: the
    affine parts of norm2 and of the last norm are ones and zeros.

    Parameters
    ----------
    edge : EdgeModel
        Its linears and convolutions need a float `weight` and a `bias`.
    model : SepViT
        The model it was made from; window tokens and the norms in front of them are its own.
    """
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}

    def put(key: str, *modules: nn.Module, scales: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        pairs = list(zip(modules, scales, strict=False))
        for name in ("weight", "bias"):
            values = [cast(Tensor, getattr(m, name)).detach().double() / s for m, s in pairs]
            state[f"{key}.{name}"] = torch.cat(values).float()

    q_scale = HEAD_DIM**-0.5
    for i, stage in enumerate(cast(list[Stage], list(edge.stages))):
        embed = f"patch_embeds.{i}"
        put(f"{embed}.proj", stage.patch_embedding.proj)
        put(f"{embed}.norm", stage.patch_embedding.norm)
        if i == 0:
            std = torch.tensor(model.config.preprocessing.std).reshape(1, 3, 1, 1) * 255
            state[f"{embed}.proj.weight"] *= std
        put(f"pos_block.{i}.proj.0", stage.cpe.proj)
        state[f"pos_block.{i}.proj.0.weight"][:, :, 1, 1] -= 1
        for j, block in enumerate(cast(list[Block], list(stage.blocks))):
            key, dsa, psa = f"blocks.{i}.{j}", block.dsa, block.psa
            put(f"{key}.norm1", dsa.norm)
            put(f"{key}.attn.DSA_qkv", dsa.q, dsa.k, dsa.v, scales=(q_scale, 1.0, 1.0))
            if psa is not None:
                put(f"{key}.attn.win_tokens_norm", psa.norm)
                put(f"{key}.attn.PSA_qk", psa.q, psa.k, scales=(q_scale, 1.0))
            put(f"{key}.attn.proj", block.proj)
            put(f"{key}.mlp.fc1", block.mlp.fc1)
            put(f"{key}.mlp.fc2", block.mlp.fc2)
            state[f"{key}.norm2.weight"].fill_(1)
            state[f"{key}.norm2.bias"].zero_()
    put("head", edge.head.classifier)
    state["norm.weight"].fill_(1)
    state["norm.bias"].zero_()
    return state
