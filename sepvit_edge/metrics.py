"""Measures of distance between two results; numpy only."""

from __future__ import annotations

import math

import numpy as np

# Float32 results cannot be told apart beyond this; identical ones would be infinitely close.
LARGEST_SQNR_DB = 200.0


def sqnr_db(signal: np.ndarray, measured: np.ndarray) -> float:
    """Compute the signal-to-quantisation-noise ratio, ``10 log10(sum s^2 / sum (s - m)^2)``.

    Parameters
    ----------
    signal, measured : numpy.ndarray
        Two arrays of one shape; `signal` is the reference.

    Returns
    -------
    float
        In dB, at most 200, which identical arrays get too; NaN if `measured` holds a NaN.

    Examples
    --------
    >>> logits = np.array([1.0, -2.0, 3.0])
    >>> round(sqnr_db(logits, logits * 1.1), 1)
    20.0
    >>> sqnr_db(logits, logits)
    200.0
    """
    s, m = signal.astype(np.float64), measured.astype(np.float64)
    noise, power = float(((s - m) ** 2).sum()), float((s**2).sum())
    if noise == 0:
        return LARGEST_SQNR_DB
    return min(10 * math.log10(power / noise), LARGEST_SQNR_DB)
