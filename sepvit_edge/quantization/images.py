"""Calibration images as pixels, and pixels in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..data.preprocess import input_pixels
from ..data.sample import Dataset, take_spread
from ..errors import SepViTError
from ..model.create import ReferenceModel


def calibration_pixels(model: ReferenceModel, data: Dataset, images: int) -> tuple[np.ndarray, str]:
    """Preprocess the calibration images: uint8 (N, H, W, 3), and their SHA-256.

    Raises
    ------
    SepViTError
        If there are no images.
    """
    if len(data) == 0 or images < 1:
        raise SepViTError("calibration needs at least one image")
    chosen = take_spread(data, images)
    pixels = input_pixels([chosen[i].image for i in range(len(chosen))], model.config)
    return pixels, hashlib.sha256(pixels.data).hexdigest()


def batches(pixels: np.ndarray, size: int) -> Iterator[tuple[Tensor, int]]:
    """Cut pixels into batches of one size, for graphs with a fixed batch.

    Yields
    ------
    Tensor
        uint8 (size, ...); the last batch is filled up by repetition.
    int
        Number of images in it that are not repetitions.
    """
    for start in range(0, len(pixels), size):
        piece = pixels[start : start + size]
        yield torch.from_numpy(np.resize(piece, (size, *piece.shape[1:]))), len(piece)
