"""Measures of distance between two results; numpy only."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

# Float32 results cannot be told apart beyond this; identical ones would be infinitely close.
LARGEST_SQNR_DB = 200.0
_Z95 = NormalDist().inv_cdf(0.975)


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
    ratio = Sqnr()
    ratio.add(signal, measured)
    return ratio.db


class Sqnr:
    """The signal-to-quantisation-noise ratio of arrays that come piece by piece; see `sqnr_db`."""

    def __init__(self) -> None:
        self._power = self._noise = 0.0

    def add(self, signal: np.ndarray, measured: np.ndarray) -> None:
        """Count a piece of both."""
        s, m = signal.astype(np.float64), measured.astype(np.float64)
        self._power += float((s**2).sum())
        self._noise += float(((s - m) ** 2).sum())

    @property
    def db(self) -> float:
        """The ratio of all pieces."""
        if self._noise == 0:
            return LARGEST_SQNR_DB
        return min(10 * math.log10(self._power / self._noise), LARGEST_SQNR_DB)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a share, by Wilson's score.

    Parameters
    ----------
    successes, trials : int
        For example the images that a model gets right, and all images; at least one trial.

    Returns
    -------
    tuple of float
        Within 0..1; unlike the normal approximation's it keeps a width at a share of 0 or 1.

    Examples
    --------
    >>> [round(end, 4) for end in wilson_interval(90, 100)]
    [0.8256, 0.9448]
    >>> [round(end, 4) for end in wilson_interval(10, 10)]
    [0.7225, 1.0]
    """
    share, z2 = successes / trials, _Z95**2
    middle = share + z2 / (2 * trials)
    spread = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    low, high = ((middle + sign * spread) / (1 + z2 / trials) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def paired_difference(
    first: np.ndarray, second: np.ndarray
) -> tuple[float, tuple[float, float], float]:
    """Compare two accuracies on the same images.

    Parameters
    ----------
    first, second : numpy.ndarray
        bool (N,): True for each image that was classified correctly.

    Returns
    -------
    difference : float
        Accuracy of `second` minus that of `first`.
    interval : tuple of float
        95 % confidence interval (Bonett and Price's, an adjusted Wald interval): on a few images
        it is wide even where both models are right on the same ones.
    p : float
        Exact McNemar test: the probability of such a difference between two equally good models.

    Examples
    --------
    >>> right = np.ones(100, bool)
    >>> difference, (low, high), p = paired_difference(right, right)
    >>> difference, f"{low:.4f} to {high:.4f}", p
    (0.0, '-0.0272 to 0.0272', 1.0)
    """
    n = len(first)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    more, less = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    spread = _Z95 * math.sqrt((more + less - (more - less) ** 2) / (n + 2))
    interval = max(more - less - spread, -1.0), min(more - less + spread, 1.0)
    return (gained - lost) / n, interval, mcnemar_p(gained, lost)


def mcnemar_p(gained: int, lost: int) -> float:
    """Compute the p-value of McNemar's exact test, two-sided.

    Integers keep it exact; the result is the nearest float64. (This one formula is all that the
    project would need scipy for, an installation of 100 MB.)

    Parameters
    ----------
    gained, lost : int
        Number of images that only the second of two models gets right, and only the first.

    Returns
    -------
    float
        Chance of a difference at least this large between two models that are equally good: each
        of the ``gained + lost`` images then falls on either side with probability 1/2.

    Examples
    --------
    >>> mcnemar_p(1, 5)
    0.21875
    >>> mcnemar_p(0, 0)
    1.0
    """
    n, smaller = gained + lost, min(gained, lost)
    if gained == lost:
        return 1.0
    tail = term = 1  # the binomial coefficients of 0 .. smaller out of n
    for i in range(smaller):
        term = term * (n - i) // (i + 1)
        tail += term
    return 2 * tail / 2**n
