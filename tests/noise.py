"""The source of pixels and numbers that every language makes for itself."""

from __future__ import annotations

import numpy as np


def noise(width: int, height: int, seed: int) -> np.ndarray:
    """Pixels that every language makes for itself: uint8 (height, width, 3).

    Byte after byte: ``state = state * 1664525 + 1013904223`` modulo 2^32, starting from the seed;
    the byte is the state's highest one.
    """
    powers = np.full(width * height * 3, 1664525, np.uint32).cumprod(dtype=np.uint32)
    sums = np.concatenate([[1], powers[:-1]]).astype(np.uint32).cumsum(dtype=np.uint32)
    states = powers * np.uint32(seed) + sums * np.uint32(1013904223)
    return (states >> np.uint32(24)).astype(np.uint8).reshape(height, width, 3)
