"""Parts of the network, grouped for people: by stage, by kind, and against the machine's roofs."""

from __future__ import annotations

from collections.abc import Callable

from .document import AttributedPart, Attribution, Roofs

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
KINDS = (*_KINDS.values(), RESIDUAL)
STAGES = ("input", "stage 1", "stage 2", "stage 3", "stage 4", "head")


def stage_of(part: str) -> str:
    """Return the stage of a part, counted from 1 as in the paper.

    Examples
    --------
    >>> stage_of("stages.2.blocks.4.psa")
    'stage 3'
    """
    return f"stage {int(part.split('.')[1]) + 1}" if part.startswith("stages.") else part


def part_kind(part: str) -> str:
    """Return the kind of a part, which is the same in every block.

    Examples
    --------
    >>> part_kind("stages.2.blocks.4.psa"), part_kind("stages.2.blocks.4")
    ('PSA', 'residual and order')
    """
    last = part.rsplit(".", 1)[-1]
    return RESIDUAL if last.isdigit() else _KINDS[last]


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
        sums[group(part.part)] += part.time_us
    return {name: time for name, time in sums.items() if time > 0}


def roof_us(part: AttributedPart, roofs: Roofs | None) -> float | None:
    """Return the shortest time that the machine's roofs allow for a part, in microseconds.

    None where a roof was not measured.
    """
    if roofs is None or not roofs.gmacs_per_s or not roofs.bandwidth_gb_per_s:
        return None
    compute = part.macs / roofs.gmacs_per_s / 1e3
    traffic = part.moved_mb / roofs.bandwidth_gb_per_s * 1e3
    return max(compute, traffic)
