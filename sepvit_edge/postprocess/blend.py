"""Linear interpolation along an axis."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

# Of each result: the two places that it lies between, and the weight of the second.
Neighbours: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


def blend(x: np.ndarray, neighbours: Neighbours) -> np.ndarray:
    """Interpolate along the last axis: ``before * (1 - weight) + after * weight``."""
    before, after, weight = neighbours
    return x[:, before] * (1 - weight) + x[:, after] * weight
