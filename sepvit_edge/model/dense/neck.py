"""The feature pyramid (FPN), as MMSegmentation and MMDetection have it."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PlainConv


class FPN(nn.Module):
    """Lateral 1 x 1 convolutions, sums from the top down, and a 3 x 3 convolution a level.

    Parameters
    ----------
    dims : sequence of int
        Channels of the backbone's maps.
    channels : int
        Channels of every level.
    first : int
        The first map that is read.
    extra : int
        Levels of double stride each on top, made of the last map by convolutions (RetinaNet).
    pooled : bool
        One level of double stride on top: every other pixel of the last level (Mask R-CNN).
    """

    def __init__(
        self,
        dims: Sequence[int],
        channels: int,
        first: int = 0,
        extra: int = 0,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        self.first, self.pooled = first, pooled
        self.lateral_convs = nn.ModuleList(PlainConv(dim, channels, 1) for dim in dims[first:])
        levels = [PlainConv(channels, channels, 3) for _ in dims[first:]]
        for i in range(extra):
            levels.append(PlainConv(channels if i else dims[-1], channels, 3, stride=2))
        self.fpn_convs = nn.ModuleList(levels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of the backbone -> one map (B, channels, h, w) a level."""
        sums = [conv(x) for conv, x in zip(self.lateral_convs, maps[self.first :], strict=True)]
        for i in range(len(sums) - 1, 0, -1):
            sums[i - 1] = sums[i - 1] + F.interpolate(sums[i], size=sums[i - 1].shape[2:])
        levels = [conv(x) for conv, x in zip(self.fpn_convs, sums, strict=False)]
        top = maps[-1]
        for conv in list(self.fpn_convs)[len(sums) :]:
            top = conv(top)
            levels.append(top)
        if self.pooled:
            levels.append(levels[-1][:, :, ::2, ::2])
        return levels
