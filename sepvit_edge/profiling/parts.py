"""Parts of the network, grouped for people: by stage, by kind, and against the machine's roofs."""

from __future__ import annotations

from collections.abc import Callable

from .document import AttributedPart, Attribution, Profile, Roofs, Step, Steps

_KINDS = {
    "input": "input",
    "patch_embedding": "patch embedding",
    "cpe": "CPE",
    "dsa": "DSA",
    "psa": "PSA",
    "proj": "projection",
    "mlp": "MLP",
    "head": "head",
}
RESIDUAL = "residual and order"  # a block's additions, and the permutations into window order
UNATTRIBUTED = "unattributed"
KINDS = (*_KINDS.values(), RESIDUAL)
STAGES = ("input", "stage 1", "stage 2", "stage 3", "stage 4", "head")


def stage_of(part: str) -> str:
    """Return the stage of a part, counted from 1 as in the paper; or the part outside of stages.

    Examples
    --------
    >>> stage_of("stages.2.blocks.4.psa")
    'stage 3'
    """
    words = part.split(".")
    if words[0] != "stages" or len(words) < 2 or words[1] not in ("0", "1", "2", "3"):
        return part
    return f"stage {int(words[1]) + 1}"


def part_kind(part: str) -> str:
    """Return the kind of a part, which is the same in every block.

    Examples
    --------
    >>> part_kind("stages.2.blocks.4.psa"), part_kind("stages.2.blocks.4")
    ('PSA', 'residual and order')

    What is not a part of this network, in a document from elsewhere, is unattributed.
    """
    last = part.rsplit(".", 1)[-1]
    return RESIDUAL if last.isdigit() else _KINDS.get(last, UNATTRIBUTED)


def by_kind(attribution: Attribution) -> dict[str, float]:
    """Sum microseconds by kind of part, in the order of `KINDS`."""
    return _sums(attribution, part_kind, KINDS)


def by_stage(attribution: Attribution) -> dict[str, float]:
    """Sum microseconds by stage, in the order of `STAGES`."""
    return _sums(attribution, stage_of, STAGES)


def _sums(
    attribution: Attribution, group: Callable[[str], str], order: tuple[str, ...]
) -> dict[str, float]:
    sums = dict.fromkeys(order, 0.0)
    for part in attribution.parts:
        if (name := group(part.part)) in sums:
            sums[name] += part.time_us
    return {name: time for name, time in sums.items() if time > 0}


def part_colour(part: str) -> str:
    """Return the report's class of a part's colour, which is that of its kind."""
    kind = part_kind(part)
    return f"k{KINDS.index(kind)}" if kind in KINDS else "rest"


_UNITS = ("c", "mb", "mhz", "ms", "mj", "s", "db", "us")
_NAMES = {"gmacs_per_s": "rate of matrix products", "throttle_events": "throttling counter"}


def plain_name(what: str) -> str:
    """Return a field of the profile document in words.

    Examples
    --------
    >>> plain_name("before.temperatures_c"), plain_name("cold_start"), plain_name("energy")
    ('temperatures', 'cold start', 'energy')
    """
    last = what.rsplit(".", 1)[-1]
    words = last.split("_")
    if len(words) > 1 and words[-1] in _UNITS:
        words = words[:-1]
    return _NAMES.get(last, " ".join(words))


def unattributed_parts(attribution: Attribution) -> dict[str, float]:
    """Return the microseconds that belong to no part, by what the runtime did in them.

    Empty where the runs were not observed as a whole, so that the two can't be told apart.
    """
    if attribution.inserted_us is None or attribution.between_us is None:
        return {}
    return {
        "copies and layouts": attribution.inserted_us,
        "between operations": max(attribution.between_us, 0.0),
    }


_ROUGH = 1.25  # runs that differ more do not have quite the same shares


def covered_us(attribution: Attribution) -> float:
    """Return the time that shares are of: the whole run, or its parts if they took longer.

    Parts that are timed one by one pay for entering and leaving each, so on several threads they
    add up to more than the whole; nothing is then unattributed.
    """
    return max(attribution.whole_us, sum(part.time_us for part in attribution.parts))


def part_scale(profile: Profile) -> float:
    """Return the factor from a part's time in its own run to its share of the median latency.

    The parts are timed in other runs, under a profiler or one by one, which take longer. So their
    shares are shown, and times that add up to the latency; the document has the times as they were.
    """
    if profile.latency is None or profile.attribution is None:
        return 1.0
    return profile.latency.p50_ms * 1e3 / covered_us(profile.attribution)


def parts_sentence(profile: Profile) -> str:
    """Say where the shares of the parts come from, and whether they are rough."""
    assert profile.attribution is not None
    attribution = profile.attribution
    whole = f"of other runs, which took {attribution.whole_us / 1e3:.2f} ms"
    if (covered := covered_us(attribution)) > attribution.whole_us:
        whole += f" (the parts, timed one by one, {covered / 1e3:.2f} ms)"
    if profile.latency is None:
        return whole
    ratio = 1 / max(part_scale(profile), 1e-9)
    rough = ""
    if not 1 / _ROUGH <= ratio <= _ROUGH:
        rough = f"; that is {ratio:.2g} times the p50, so they are rough"
    elif (attribution.profiler_share or 0) > _ROUGH - 1:
        rough = f"; the profiler cost {attribution.profiler_share:+.0%}, so they are rough"
    return f"{whole}, scaled to the p50 of {profile.latency.p50_ms:.2f} ms{rough}"


def roof_us(part: AttributedPart, roofs: Roofs | None) -> float | None:
    """Return the shortest time that the machine's roofs allow for a part, in microseconds.

    None where a roof was not measured.
    """
    if roofs is None or not roofs.gmacs_per_s or not roofs.bandwidth_gb_per_s:
        return None
    compute = part.macs / roofs.gmacs_per_s / 1e3
    traffic = part.moved_mb / roofs.bandwidth_gb_per_s * 1e3
    return max(compute, traffic)


def step_shares(steps: Steps) -> list[tuple[Step, float]]:
    """Return the steps of an image with their shares of the sum of all."""
    total = sum(step.p50_ms for step in steps.items) or 1.0
    return [(step, step.p50_ms / total) for step in steps.items]


def steps_sentence(steps: Steps) -> str:
    """Say what the times of the steps depend on."""
    return (
        f"{steps.image} of the golden vectors, with {steps.regions} regions and {steps.objects} "
        "objects; an image with more of them takes longer"
    )
