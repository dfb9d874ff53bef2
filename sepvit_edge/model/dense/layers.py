"""Convolutions as MMCV names them, and the resize that its necks and heads share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PlainConv(nn.Module):
    """A convolution with a bias, its key is ``conv``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), or half of each side at stride 2."""
        return self.conv(x)


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; keys ``conv`` and ``bn``."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return F.relu(self.bn(self.conv(x)))


def resized_to(x: Tensor, like: Tensor) -> Tensor:
    """Resize (B, C, h, w) to the sides of another map: bilinear, centres of pixels aligned."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def level_rows(x: Tensor, width: int) -> Tensor:
    """(B, anchors * width, h, w) -> (B, h * w * anchors, width)."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, width)


def initialize_conv(conv: nn.Conv2d, std: float = 0.01, bias: float = 0.0) -> None:
    """Set small random weights and one bias, for the last layers of a head."""
    nn.init.normal_(conv.weight, std=std)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, bias)
