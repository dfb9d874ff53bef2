"""The parts to keep in float, so that int8 loses at most some accuracy and costs the least time.

Int8 adds noise to the logits in every part, and saves time there. Independent errors add up, and
so do times: a part is worth keeping in float for the noise that this removes per millisecond
that it costs. Parts in this order, one more at a time, are the front between noise and time; the
first point of it whose accuracy is within the budget is the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CheckFailed, SepViTError
from ..metrics import paired_difference
from ..quantization.sensitivity import Sensitivity
from .document import Profile

# A part that int8 makes slower by this share of the whole is kept in float at any budget; smaller
# differences are within what two measurements differ by.
_CLEARLY_SLOWER = 0.01


@dataclass(frozen=True)
class PartCost:
    """What int8 adds and saves in one part of the network.

    Attributes
    ----------
    part : str
        ``"stages.2.blocks.4.psa"``.
    layers : int
        Linears and convolutions in it.
    noise_power : float
        Mean square of the logits' error with this part alone in int8.
    noise_share : float
        Share of the sum over all parts, 0..1.
    fp32_ms, int8_ms : float
        Time of the part on the device.
    """

    part: str
    layers: int
    noise_power: float
    noise_share: float
    fp32_ms: float
    int8_ms: float

    @property
    def saved_ms(self) -> float:
        """Time that int8 saves; negative where it is slower."""
        return self.fp32_ms - self.int8_ms


@dataclass(frozen=True)
class Loss:
    """Accuracy on the images, compared with fp32 image by image.

    Attributes
    ----------
    top1 : float
        Accuracy, 0..1.
    points : float
        Points of top-1 that are lost; negative where accuracy is gained.
    interval : tuple of float
        Their 95 % confidence interval (paired).
    """

    top1: float
    points: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Choice:
    """A point of the front.

    Attributes
    ----------
    keep_float : tuple of str
        Parts in float.
    noise_share : float
        Share of the noise power of int8 that is left, 0..1.
    estimated_ms : float
        Time of int8 plus what the parts in float cost.
    loss : Loss or None
        In torch's int8; None where it was not measured.
    """

    keep_float: tuple[str, ...]
    noise_share: float
    estimated_ms: float
    loss: Loss | None = None


def part_costs(
    noise: Sequence[Sensitivity], fp32: Profile, int8: Profile
) -> tuple[list[PartCost], float, float]:
    """Put the noise and the times of each part together.

    Parameters
    ----------
    noise : sequence of Sensitivity
        As `sepvit_edge.quantization.sensitivity.scan` returns them.
    fp32, int8 : Profile
        The same model on the same device, with times of operations.

    Returns
    -------
    costs : list of PartCost
        In the order of the network; layers without a part in `noise` are float in int8 too.
    fp32_ms, int8_ms : float
        Time of a whole run (p50).

    Raises
    ------
    SepViTError
        If a profile lacks the times of its parts.
    """
    times, wholes = [], []
    for profile in (fp32, int8):
        if profile.attribution is None or profile.latency is None:
            raise SepViTError(
                f"the runtime on {profile.device.name} tells no times of single operations; "
                "choose another --target, or a --device on which Python runs"
            )
        # Operations were timed in runs of their own: their shares count, of the p50.
        whole = profile.latency.p50_ms
        scale = whole / profile.attribution.whole_us
        times.append({one.part: one.time_us * scale for one in profile.attribution.parts})
        wholes.append(whole)
    costs = [
        PartCost(
            one.part,
            one.layers,
            one.noise_power,
            one.noise_share,
            fp32_ms=times[0].get(one.part, 0.0),
            int8_ms=times[1].get(one.part, 0.0),
        )
        for one in noise[:-1]
    ]
    return costs, wholes[0], wholes[1]


def front_of(costs: Sequence[PartCost], int8_ms: float) -> tuple[list[Choice], int]:
    """Keep one part more in float at a time, the most noise per millisecond first.

    Parameters
    ----------
    costs : sequence of PartCost
        All parts.
    int8_ms : float
        Time of a run with all of them in int8.

    Returns
    -------
    front : list of Choice
        From everything in int8 to all parts but one in float.
    first : int
        Index of the fastest: before it, float is faster than int8.
    """

    def faster_in_float(cost: PartCost) -> bool:
        return cost.saved_ms < -_CLEARLY_SLOWER * int8_ms

    def noise_per_ms(cost: PartCost) -> float:
        return cost.noise_power / max(cost.saved_ms, int8_ms / 1000)

    free = sorted(filter(faster_in_float, costs), key=lambda cost: cost.saved_ms)
    others = [cost for cost in costs if not faster_in_float(cost)]
    front = [Choice((), 1.0, int8_ms)]
    for cost in [*free, *sorted(others, key=noise_per_ms, reverse=True)]:
        last = front[-1]
        front.append(
            Choice(
                (*last.keep_float, cost.part),
                max(last.noise_share - cost.noise_share, 0.0),
                last.estimated_ms + cost.saved_ms,
            )
        )
    return front[:-1], len(free)  # with every part in float it is another precision


def first_within(
    front: list[Choice], first: int, within: float, measure: Callable[[Choice], Choice]
) -> int:
    """Find the fastest point of a front that loses at most so much accuracy.

    More parts in float are taken to lose less, so a few points are enough; what is chosen was
    measured.

    Parameters
    ----------
    front : list of Choice
        From `front_of`; points that are measured are replaced in it.
    first : int
        The fastest one.
    within : float
        Points of top-1 that may be lost.
    measure : callable
        Returns a choice with its loss.

    Returns
    -------
    int
        Index of the choice.

    Raises
    ------
    CheckFailed
        If none is within the budget, or none has a part in int8 left.
    """

    def holds(index: int) -> bool:
        front[index] = measured = measure(front[index])
        assert measured.loss is not None
        return measured.loss.points <= within + 1e-9

    if first >= len(front):
        raise CheckFailed(
            "int8 is slower than fp32 in every part on this device; export with --precision fp32"
        )
    if holds(first):
        return first
    low, high = first, len(front) - 1
    if high == low or not holds(high):
        raise CheckFailed(
            f"int8 in a single part already loses more than {within:g} points; export with "
            "--precision fp32, or allow more by --within"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def loss_of(reference: np.ndarray, measured: np.ndarray, labels: np.ndarray) -> Loss:
    """Compare two arrays of logits (N, num_classes) by their accuracy on labels (N,)."""
    right = [logits.argmax(1) == labels for logits in (reference, measured)]
    difference, (low, high), _ = paired_difference(*right)
    return Loss(float(right[1].mean()), 0.0 - 100 * difference, (-100 * high, -100 * low))


def images_needed(loss: Loss, images: int, within: float) -> int | None:
    """Estimate how many images would show that a loss is within a budget.

    Returns
    -------
    int or None
        None where the loss that was measured is on the budget or beyond it.
    """
    room = within - loss.points
    if room <= 0:
        return None
    spread = (loss.interval[1] - loss.interval[0]) / 2
    return round(images * (spread / room) ** 2)
