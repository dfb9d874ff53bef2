"""UperNet (arXiv 1807.10221): pyramid pooling on the last map, then a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import ConvNormReLU, initialize_conv, resized_to

POOLS = (1, 2, 3, 6)  # cells on a side


class UperNetHead(nn.Module):
    """MMSegmentation's ``UPerHead``; the auxiliary head is for training and left out.

    Parameters
    ----------
    dims : sequence of int
        Channels of the backbone's maps.
    channels : int
        Channels of its own maps.
    num_classes : int
        Classes.
    """

    def __init__(self, dims: Sequence[int], channels: int, num_classes: int) -> None:
        super().__init__()
        *lower, last = dims
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), ConvNormReLU(last, channels, 1))
            for cells in POOLS
        )
        self.bottleneck = ConvNormReLU(last + len(POOLS) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvNormReLU(dim, channels, 1) for dim in lower)
        self.fpn_convs = nn.ModuleList(ConvNormReLU(channels, channels, 3) for _ in lower)
        self.fpn_bottleneck = ConvNormReLU(len(dims) * channels, channels, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        initialize_conv(self.conv_seg)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of strides 4 to 32 -> logits (B, classes, H / 4, W / 4)."""
        *lower, last = maps
        pooled = [resized_to(pool(last), last) for pool in self.psp_modules]
        sums = [conv(x) for conv, x in zip(self.lateral_convs, lower, strict=True)]
        sums.append(self.bottleneck(torch.cat((last, *pooled), 1)))
        for i in range(len(sums) - 1, 0, -1):
            sums[i - 1] = sums[i - 1] + resized_to(sums[i], sums[i - 1])
        levels = [conv(x) for conv, x in zip(self.fpn_convs, sums, strict=False)] + [sums[-1]]
        levels = [levels[0], *(resized_to(level, levels[0]) for level in levels[1:])]
        return self.conv_seg(self.dropout(self.fpn_bottleneck(torch.cat(levels, 1))))
