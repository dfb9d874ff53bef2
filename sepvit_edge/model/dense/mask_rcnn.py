"""Mask R-CNN (arXiv 1703.06870): one network proposes regions, two others look at each of them.

What stands between the three, from proposals to the features of a region, is no network: it is
`sepvit_edge.postprocess`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import BOX_CELLS
from .layers import PlainConv, initialize_conv, level_rows

ANCHORS = 3  # a position: one scale of three ratios
LEVELS = 4  # of the pyramid, that features are taken from; proposals come from one more
_CONVS = 4  # of the mask head
HIDDEN = 4  # width of the box head, in channels of the pyramid: 1024 in the paper


class RPNHead(nn.Module):
    """MMDetection's ``RPNHead``: scores and boxes of the anchors of every level.

    Parameters
    ----------
    channels : int
        Channels of the levels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, ANCHORS, 1)
        self.rpn_reg = nn.Conv2d(channels, 4 * ANCHORS, 1)
        for conv in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            initialize_conv(conv)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Levels -> logits (B, A, 1) and box deltas (B, A, 4), in the order of `RetinaNetHead`."""
        shared = [F.relu(self.rpn_conv(level)) for level in levels]
        logits = torch.cat([level_rows(self.rpn_cls(x), 1) for x in shared], 1)
        return logits, torch.cat([level_rows(self.rpn_reg(x), 4) for x in shared], 1)


class BoxHead(nn.Module):
    """MMDetection's ``Shared2FCBBoxHead``: the class of a region, and a box for each class.

    Parameters
    ----------
    channels : int
        Channels of the features.
    num_classes : int
        Classes, without the background.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        width = HIDDEN * channels
        self.shared_fcs = nn.ModuleList(
            [nn.Linear(channels * BOX_CELLS**2, width), nn.Linear(width, width)]
        )
        self.fc_cls = nn.Linear(width, num_classes + 1)
        self.fc_reg = nn.Linear(width, 4 * num_classes)
        for layer in self.shared_fcs:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for last, std in ((self.fc_cls, 0.01), (self.fc_reg, 0.001)):
            nn.init.normal_(last.weight, std=std)
            nn.init.zeros_(last.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, channels, 7, 7) -> logits (N, classes + 1), box deltas (N, 4 classes).

        The background is the last class.
        """
        x = regions.flatten(1)
        for layer in self.shared_fcs:
            x = F.relu(layer(x))
        return self.fc_cls(x), self.fc_reg(x)


class MaskHead(nn.Module):
    """MMDetection's ``FCNMaskHead``: a mask of each class.

    Parameters
    ----------
    channels : int
        Channels of the features, and its own.
    num_classes : int
        Classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(PlainConv(channels, channels, 3) for _ in range(_CONVS))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(channels, num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> Tensor:
        """Features (N, channels, 14, 14) -> logits (N, classes, 28, 28)."""
        x = regions
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.conv_logits(F.relu(self.upsample(x)))


class RoIHead(nn.Module):
    """The two networks that look at regions; keys ``bbox_head`` and ``mask_head``."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.bbox_head = BoxHead(channels, num_classes)
        self.mask_head = MaskHead(channels, num_classes)
