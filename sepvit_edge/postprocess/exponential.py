"""The exponential function and the sigmoid, made of operations that every language rounds alike."""

from __future__ import annotations

import numpy as np

_LOG2_E, _LN_2 = 1.4426950408889634, 0.6931471805599453
_TERMS = 13
_LIMIT = 88.0


def exp(x: np.ndarray) -> np.ndarray:
    """Compute e^x to about 1e-14, relative.

    With ``k = floor(x * log2(e) + 0.5)`` and ``r = x - k * ln(2)``, it is 2^k times the Taylor
    polynomial of e^r with 13 terms by Horner's rule: ``s = 1 + r * s / i`` for i from 13 down to 1,
    starting from s = 1.

    Parameters
    ----------
    x : numpy.ndarray
        Numbers without NaN; those beyond -88 and 88 count as these.

    Returns
    -------
    numpy.ndarray
        float64, of the same shape.

    Examples
    --------
    >>> exp(np.array([0.0, 1.0])).tolist()
    [1.0, 2.7182818284590455]
    """
    x = np.clip(x.astype(np.float64), -_LIMIT, _LIMIT)
    k = np.floor(x * _LOG2_E + 0.5)
    r = x - k * _LN_2
    s = np.ones_like(r)
    for i in range(_TERMS, 0, -1):
        s = 1 + r * s / i
    return np.ldexp(s, k.astype(np.int64))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute ``1 / (1 + exp(-x))``, rounded to float32."""
    return (1 / (1 + exp(-x.astype(np.float64)))).astype(np.float32)
