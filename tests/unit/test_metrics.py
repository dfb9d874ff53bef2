"""Distances, intervals and tests against numbers from papers, by hand or counted out."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from sepvit_edge.metrics import mcnemar_p, paired_difference, sqnr_db, wilson_interval


def test_sqnr() -> None:
    signal = np.array([3.0, -4.0])
    # noise of a tenth of the signal's amplitude: 20 dB
    assert sqnr_db(signal, signal * 1.1) == pytest.approx(20)
    assert sqnr_db(signal, signal) == 200


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20, method 3
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def rights(n: int, gained: int, lost: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models on n images, all others right by both."""
    first, second = np.ones(n, bool), np.ones(n, bool)
    first[:gained] = False
    second[gained : gained + lost] = False
    return first, second


def test_paired_difference_is_bonett_and_prices() -> None:
    difference, (low, high), p = paired_difference(*rights(100, 2, 6))
    assert difference == pytest.approx(-0.04)
    # 3/102 and 7/102: standard error sqrt((10/102 - (4/102)^2) / 102) = 0.03076; p of 2 in 8
    spread = 1.96 * 0.03076
    assert (low, high) == pytest.approx((-4 / 102 - spread, -4 / 102 + spread), abs=1e-4)
    assert p == pytest.approx(2 * (1 + 8 + 28) / 256)


def test_the_interval_of_a_difference_holds_the_true_one_on_few_images() -> None:
    # 20 images, each lost with a chance of 8 %. Wald's interval misses it in a fifth of all trials:
    # where no image is lost it has no width.
    n, chance, held = 20, 0.08, 0.0
    for lost in range(n + 1):
        _, (low, high), _ = paired_difference(*rights(n, 0, lost))
        likely = math.comb(n, lost) * chance**lost * (1 - chance) ** (n - lost)
        held += likely * (low <= -chance <= high)
    assert held > 0.93


def test_mcnemars_test_is_exact() -> None:
    for gained, lost in ((0, 0), (3, 3), (0, 4), (7, 2), (61, 90), (0, 1200)):
        n = gained + lost
        # Two-sided: every outcome that is not more likely than the one that was seen.
        ways = [math.comb(n, k) for k in range(n + 1)]
        unlikely = sum(w for w in ways if w <= ways[gained])
        assert mcnemar_p(gained, lost) == float(Fraction(unlikely, 2**n))
    assert mcnemar_p(24_900, 25_100) == pytest.approx(0.3734901856394253)  # scipy's binomtest
