"""Table and picture of a search for the parts to keep in float."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..charts import load_pyplot
from ..files import replacing_file
from .console import console, print_columns, print_table

if TYPE_CHECKING:
    from ..profiling.precision import Loss
    from ..profiling.precision_search import PrecisionPlan


def print_plan(plan: PrecisionPlan) -> None:
    """Print the parts by their noise, the front, and what was chosen."""
    parts = sorted(plan.parts, key=lambda part: -part.noise_power)
    kept = set(plan.chosen.keep_float)
    rows = [
        [
            part.part,
            f"{part.noise_share:.1%}",
            f"{part.fp32_ms:.3f}",
            f"{part.int8_ms:.3f}",
            f"{part.saved_ms:+.3f}",
            "float" if part.part in kept else "int8",
        ]
        for part in parts
    ]
    print_columns(["part", "share of noise", "fp32 ms", "int8 ms", "saved ms", "chosen"], rows)
    rows = [
        [
            str(len(choice.keep_float)),
            choice.keep_float[-1] if choice.keep_float else "",
            f"{choice.estimated_ms:.2f}",
            f"{choice.noise_share:.1%}",
            "" if choice.loss is None else _loss(choice.loss),
            "chosen" if choice.keep_float == plan.chosen.keep_float else "",
        ]
        for choice in plan.front
    ]
    header = ["parts in float", "the last of them", "estimated ms", "noise left"]
    print_columns([*header, "points lost (95 % interval)", ""], rows)
    print_table(
        f"int8 within {plan.within:g} points on {plan.device}",
        [
            ("top-1 in fp32", f"{plan.fp32_top1:.2%} of {plan.images} images"),
            ("top-1 chosen", f"{plan.loss.top1:.2%}"),
            ("points lost", _loss(plan.loss)),
            ("budget", verdict_of(plan)),
            ("time, p50", f"{plan.chosen_ms:.2f} ms chosen"),
            ("", ""),
            ("int8", f"{plan.int8_ms:.2f} ms"),
            ("fp32", f"{plan.fp32_ms:.2f} ms"),
            *(("not trustworthy", f"because {doubt}") for doubt in plan.doubts),
        ],
    )


def verdict_of(plan: PrecisionPlan) -> str:
    """Return whether the budget is kept, in words."""
    if plan.verdict == "kept":
        return "kept"
    if plan.images_needed is None:
        return "kept as measured, but too few images to tell"
    return f"kept as measured, but too few images to tell: about {plan.images_needed} would"


def _loss(loss: Loss) -> str:
    low, high = loss.interval
    return f"{loss.points:+.2f} ({low:+.2f} to {high:+.2f})"


def draw_plan(plan: PrecisionPlan, path: Path, title: str) -> None:
    """Draw the front as a PNG: time against noise, with the points that were measured.

    Parameters
    ----------
    plan : PrecisionPlan
        The outcome.
    path : Path
        The file to write.
    title : str
        The model, the images and the device.
    """
    plt = load_pyplot()
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    times = [choice.estimated_ms for choice in plan.front]
    axes.plot(times, [100 * choice.noise_share for choice in plan.front], ".-", label="front")
    for choice in plan.front:
        if choice.loss is not None:
            place = (choice.estimated_ms, 100 * choice.noise_share)
            axes.annotate(
                f"{choice.loss.points:+.2f}",
                place,
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
            )
    axes.plot(
        plan.chosen.estimated_ms,
        100 * plan.chosen.noise_share,
        "o",
        markersize=10,
        label=f"chosen: {len(plan.chosen.keep_float)} parts in float, {plan.loss.points:+.2f} "
        f"points lost, {plan.chosen_ms:.2f} ms measured",
    )
    axes.axvline(plan.fp32_ms, linestyle="--", color="grey", label=f"fp32: {plan.fp32_ms:.2f} ms")
    axes.set_xlabel("time on the device, ms (estimated from the times of the parts)")
    axes.set_ylabel("noise power that is left, % of int8's")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    plt.close(figure)


def say_where(path: Path) -> None:
    """Tell how to use the recipe."""
    console.print(f"wrote {path}; use it: sepvit-edge export --recipe {path}")
