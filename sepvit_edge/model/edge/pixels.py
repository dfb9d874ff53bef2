"""The first part of every form: pixels 0-255, in the layout and type that a runtime takes."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """Pixels to what the first convolution takes, mean subtracted.

    Zero padding is zero after normalisation, so the mean has to be subtracted in the graph; the
    scale is in the convolution's weights (principle 4).

    Attributes
    ----------
    dtype : str
        ``"uint8"`` or ``"float32"``.
    layout : str
        ``"NHWC"`` or ``"NCHW"``.
    """

    dtype: ClassVar[Literal["uint8", "float32"]]
    layout: ClassVar[Literal["NHWC", "NCHW"]]

    def __init__(self, mean: tuple[float, ...]) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.tensor(mean).reshape(1, 3, 1, 1) * 255)

    @classmethod
    def example(cls, batch: int, height: int, width: int) -> Tensor:
        """Return zero pixels of the shape and type that `forward` takes."""
        raise NotImplementedError


class BytePixels(Pixels):
    """uint8 (B, H, W, 3), as image decoders give them."""

    dtype, layout = "uint8", "NHWC"

    @classmethod
    def example(cls, batch: int, height: int, width: int) -> Tensor:
        """Return zero pixels, uint8 (B, H, W, 3)."""
        return torch.zeros(batch, height, width, 3, dtype=torch.uint8)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, 3, H, W)."""
        return pixels.permute(0, 3, 1, 2).to(torch.float32) - self.mean


class FloatPixels(Pixels):
    """The same values as float32 (B, 3, H, W), for runtimes that convert no integers."""

    dtype, layout = "float32", "NCHW"

    @classmethod
    def example(cls, batch: int, height: int, width: int) -> Tensor:
        """Return zero pixels, float32 (B, 3, H, W)."""
        return torch.zeros(batch, 3, height, width)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 (B, 3, H, W) -> the same shape."""
        return pixels - self.mean
