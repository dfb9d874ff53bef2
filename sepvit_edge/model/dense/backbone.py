"""The SepViT backbone for dense prediction: four maps of an image of any size.

It differs from the classifier of reference.py in this: maps are padded to whole windows; window
tokens are zeros and no parameters; every block has PSA, also with one window; and the norm of each
stage's output is in the stream, the next stage reads the normed map.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..reference import (
    MLP,
    DepthwiseSeparableSelfAttention,
    DropPath,
    OverlappingPatchEmbedding,
    initialize_layer,
)
from ..variants import find_variant

# Odd blocks of these stages join 2 x 2 windows (section 3.3).
GROUPED = (False, True, True, False)


def window_sides(depths: tuple[int, ...], ws: int) -> list[list[int]]:
    """Return the window side of every block of every stage, in pixels of the stage's map.

    Examples
    --------
    >>> window_sides((1, 2, 3, 1), 7)
    [[7], [7, 14], [7, 14, 7], [7]]
    """
    return [
        [2 * ws if GROUPED[stage] and block % 2 else ws for block in range(depth)]
        for stage, depth in enumerate(depths)
    ]


def split_windows(x: Tensor, ws: int) -> Tensor:
    """Cut a (B, H, W, C) map of whole windows into (B, n, M, C), row by row."""
    B, H, W, C = x.shape
    x = x.reshape(B, H // ws, ws, W // ws, ws, C).transpose(2, 3)
    return x.reshape(B, -1, ws * ws, C)


def join_windows(x: Tensor, height: int, width: int, ws: int) -> Tensor:
    """Put (B, n, M, C) windows back into a (B, height, width, C) map."""
    B, _, _, C = x.shape
    x = x.reshape(B, height // ws, width // ws, ws, ws, C).transpose(2, 3)
    return x.reshape(B, height, width, C)


class DenseBlock(nn.Module):
    """The pre-norm SepViT block on a map of any size."""

    def __init__(self, dim: int, ws: int, drop_path: float) -> None:
        super().__init__()
        self.ws = ws
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DepthwiseSeparableSelfAttention(dim, separable=True)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        B, H, W, C = x.shape
        down, right = -H % self.ws, -W % self.ws
        # Padding and tokens are zeros in front of norm1. No softmax masks them: they take part.
        windows = split_windows(F.pad(x, (0, 0, 0, right, 0, down)), self.ws)
        windows = torch.cat((windows.new_zeros(B, windows.shape[1], 1, C), windows), 2)
        y = self.attn.pointwise(self.attn.depthwise(self.norm1(windows)))
        y = join_windows(y, H + down, W + right, self.ws)[:, :H, :W]
        x = x + self.drop_path(self.attn.proj(y))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PositionEncoding(nn.Module):
    """A depthwise 3 x 3 convolution added to the map, after the first block of each stage."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return x + self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class DenseBackbone(nn.Module):
    """Four stages; keys are those of the authors' dense code.

    Parameters
    ----------
    variant : str
        See `find_variant`.
    ws : int
        Side of a window in pixels of a map.
    drop_path : float
        Rate of the last block; it rises linearly from 0 at the first.
    """

    def __init__(self, variant: str, ws: int, drop_path: float = 0.0) -> None:
        super().__init__()
        dims, depths = find_variant(variant).dims, find_variant(variant).depths
        self.dims = dims
        rates = (drop_path * i / max(1, sum(depths) - 1) for i in range(sum(depths)))
        self.patch_embeds = nn.ModuleList(
            OverlappingPatchEmbedding(3, dim, 7, 4)
            if stage == 0
            else OverlappingPatchEmbedding(dims[stage - 1], dim, 3, 2)
            for stage, dim in enumerate(dims)
        )
        self.pos_block = nn.ModuleList(PositionEncoding(dim) for dim in dims)
        self.blocks = nn.ModuleList(
            nn.ModuleList(DenseBlock(dim, side, next(rates)) for side in sides)
            for dim, sides in zip(dims, window_sides(depths, ws), strict=True)
        )
        self.norm_list = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for dim in dims)
        self.apply(initialize_layer)

    def set_window(self, ws: int) -> None:
        """Change the windows in place; no weight depends on them."""
        depths = tuple(len(cast(nn.ModuleList, stage)) for stage in self.blocks)
        for stage, sides in zip(self.blocks, window_sides(depths, ws), strict=True):
            for block, side in zip(cast(nn.ModuleList, stage), sides, strict=True):
                block.ws = side  # type: ignore[assignment]

    def streams(self, x: Tensor) -> Iterator[tuple[nn.LayerNorm, Tensor]]:
        """Yield each stage's norm and what it will be given, (B, H, W, C); the norm comes after.

        A caller may change the norm before it asks for the next stage.
        """
        for stage, embed in enumerate(self.patch_embeds):
            height, width = (side // (4 if stage == 0 else 2) for side in x.shape[2:])
            x = embed(x).unflatten(1, (height, width))
            for index, block in enumerate(cast(nn.ModuleList, self.blocks[stage])):
                x = block(x)
                if index == 0:
                    x = self.pos_block[stage](x)
            norm = cast(nn.LayerNorm, self.norm_list[stage])
            yield norm, x
            x = norm(x).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) -> four maps (B, C, h, w) of strides 4, 8, 16, 32."""
        return [norm(stream).permute(0, 3, 1, 2) for norm, stream in self.streams(x)]
