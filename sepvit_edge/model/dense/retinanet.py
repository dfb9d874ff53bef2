"""RetinaNet (arXiv 1708.02002): one small network slides over five levels of the pyramid."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PlainConv, initialize_conv, level_rows

ANCHORS = 9  # a position: ratios, and within each ratio scales
FIRST_MAP, EXTRA_LEVELS = 1, 2  # levels of strides 8 to 32, and 64 and 128 on top
_CONVS = 4
_PRIOR = 0.01  # probability of every class before training, for focal loss


class RetinaNetHead(nn.Module):
    """MMDetection's ``RetinaHead``.

    Parameters
    ----------
    channels : int
        Channels of the levels.
    num_classes : int
        Classes; there is none for the background.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.cls_convs = nn.ModuleList(PlainConv(channels, channels, 3) for _ in range(_CONVS))
        self.reg_convs = nn.ModuleList(PlainConv(channels, channels, 3) for _ in range(_CONVS))
        self.retina_cls = nn.Conv2d(channels, ANCHORS * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(channels, ANCHORS * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initialize_conv(module)
        initialize_conv(self.retina_cls, bias=-math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Levels -> class logits (B, A, classes) and box deltas (B, A, 4).

        The A boxes: levels in order of stride; within one, rows, columns, then its nine anchors.
        """
        logits, deltas = [], []
        for level in levels:
            classes = _through(self.cls_convs, level, self.retina_cls)
            logits.append(level_rows(classes, self.num_classes))
            deltas.append(level_rows(_through(self.reg_convs, level, self.retina_reg), 4))
        return torch.cat(logits, 1), torch.cat(deltas, 1)


def _through(convs: nn.ModuleList, x: Tensor, last: nn.Conv2d) -> Tensor:
    for conv in convs:
        x = F.relu(conv(x))
    return last(x)
