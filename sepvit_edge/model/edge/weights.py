"""Plain weights of an edge form, as a tree that mirrors the modules of an `EdgeModel`.

folding.py makes them of a reference model; a form's classes make their layers of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..variants import HEAD_DIM

Sides = tuple[int, int]  # of a map: height, width


def _frozen(values: Tensor) -> nn.Parameter:
    """Copy values into a float32 parameter: edge models share nothing with the reference."""
    return nn.Parameter(values.detach().to(torch.float32, copy=True).contiguous(), False)


class LinearReLU(nn.Linear):
    """A linear and its ReLU: one int8 layer where it is quantised."""

    def forward(self, input: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        return F.relu(super().forward(input))


class ConvReLU(nn.Conv2d):
    """A convolution and its ReLU: one int8 layer where it is quantised."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return F.relu(super().forward(input))


@dataclass(frozen=True)
class LayerWeights:
    """Weight and bias of a linear or convolution.

    Attributes
    ----------
    weight : Tensor
        (out, in) of a linear, (out, in / groups, k, k) of a convolution.
    bias : Tensor
        (out,).
    """

    weight: Tensor
    bias: Tensor

    def linear(self, relu: bool = False) -> nn.Linear:
        """Make a linear of (rows, C); with `relu` its ReLU is a part of it."""
        outputs, inputs = self.weight.shape
        linear = nn.utils.skip_init(LinearReLU if relu else nn.Linear, inputs, outputs)
        linear.weight, linear.bias = _frozen(self.weight), _frozen(self.bias)
        return linear

    def pointwise(self) -> nn.Conv2d:
        """Make a 1 x 1 convolution of a linear's weights."""
        return LayerWeights(self.weight[:, :, None, None], self.bias).convolution()

    def convolution(self, stride: int = 1, groups: int = 1, relu: bool = False) -> nn.Conv2d:
        """Make a convolution of (B, C, H, W) that keeps H and W at stride 1."""
        outputs, inputs, kernel, _ = self.weight.shape
        kind = ConvReLU if relu else nn.Conv2d
        conv = nn.utils.skip_init(
            kind, inputs * groups, outputs, kernel, stride, kernel // 2, groups=groups
        )
        conv.weight, conv.bias = _frozen(self.weight), _frozen(self.bias)
        return conv

    def heads(self) -> nn.ModuleList:
        """Make linears (C -> d), one a head."""
        pairs = zip(self.weight.split(HEAD_DIM), self.bias.split(HEAD_DIM), strict=True)
        return nn.ModuleList(LayerWeights(weight, bias).linear() for weight, bias in pairs)


@dataclass(frozen=True)
class NormWeights:
    """A LayerNorm over C channels.

    Attributes
    ----------
    width : int
        C.
    eps : float
        What is added to the variance.
    affine : LayerWeights or None
        Weight and bias (C,); None where the linear behind the norm has taken them.
    """

    width: int
    eps: float
    affine: LayerWeights | None

    def parameters(self) -> tuple[nn.Parameter | None, nn.Parameter | None]:
        """Make the affine part's parameters."""
        if self.affine is None:
            return None, None
        return _frozen(self.affine.weight), _frozen(self.affine.bias)


@dataclass(frozen=True)
class EmbeddingWeights:
    """A patch embedding: strided convolution, then LayerNorm."""

    proj: LayerWeights
    norm: NormWeights


@dataclass(frozen=True)
class DSAWeights:
    """Attention within windows; `window_tokens` (n, 1, C) are behind the norm, or None."""

    norm: NormWeights
    q: LayerWeights
    k: LayerWeights
    v: LayerWeights
    window_tokens: Tensor | None

    def token_rows(self, batch: int) -> nn.Buffer | None:
        """Make the constant (B n, 1, C): the window tokens of all images."""
        if self.window_tokens is None:
            return None
        return nn.Buffer(self.window_tokens.repeat(batch, 1, 1))

    def token_map(self, batch: int) -> nn.Buffer | None:
        """Make the constant (B, C, n, 1): the window tokens of all images, as a map."""
        if self.window_tokens is None:
            return None
        tokens = self.window_tokens.permute(2, 0, 1).repeat(batch, 1, 1, 1)
        return nn.Buffer(tokens.contiguous())


@dataclass(frozen=True)
class PSAWeights:
    """Attention among windows, from their tokens."""

    norm: NormWeights
    q: LayerWeights
    k: LayerWeights


@dataclass(frozen=True)
class MLPWeights:
    """LayerNorm without its affine part, and two linears."""

    norm: NormWeights
    fc1: LayerWeights
    fc2: LayerWeights


@dataclass(frozen=True)
class Windows:
    """How a map is cut into windows.

    Attributes
    ----------
    rows, columns : int
        Windows down and across.
    side : int
        Pixels of a window's side (ws).
    padding : tuple of int
        Rows of pixels below the map, and columns on its right, that fill the last windows.
    """

    rows: int
    columns: int
    side: int
    padding: Sides = (0, 0)

    @property
    def count(self) -> int:
        """Windows of an image (n)."""
        return self.rows * self.columns

    @property
    def pixels(self) -> int:
        """Pixels of a window (M)."""
        return self.side**2

    @property
    def map(self) -> Sides:
        """Sides of the map without its padding."""
        down, right = self.padding
        return self.rows * self.side - down, self.columns * self.side - right


@dataclass(frozen=True)
class BlockWeights:
    """One SepViT block; `psa` is None where one window is the whole map."""

    windows: Windows
    dsa: DSAWeights
    psa: PSAWeights | None
    proj: LayerWeights
    mlp: MLPWeights


@dataclass(frozen=True)
class StageWeights:
    """One stage; `sides` are those of its map."""

    sides: Sides
    patch_embedding: EmbeddingWeights
    blocks: list[BlockWeights]
    cpe: LayerWeights


@dataclass(frozen=True)
class HeadWeights:
    """Final LayerNorm without its affine part, and the classifier."""

    norm: NormWeights
    classifier: LayerWeights


@dataclass(frozen=True)
class ModelWeights:
    """A whole network; `mean` is that of the preprocessing, 0..1, one a channel."""

    mean: tuple[float, ...]
    stages: list[StageWeights]
    head: HeadWeights
