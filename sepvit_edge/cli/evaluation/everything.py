"""Every runtime and precision of some checkpoints, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import console, emit_json, print_columns, steps, warn

if TYPE_CHECKING:
    from ...pipeline.comparison import Comparison


def evaluate_everything(
    weights: Sequence[str],
    data: str,
    classes: str,
    images: int | None,
    only: Sequence[str],
    calibration: str,
    json: bool,
) -> None:
    """Export the checkpoints for every runtime, measure them on the same images, and compare."""
    from ...checkpoints.builtin import builtin_checkpoints, default_checkpoint
    from ...checkpoints.files import load_checkpoint
    from ...data.choose import open_dataset
    from ...pipeline.comparison import compare_everything
    from ...pipeline.defaults import calibrates_on_others, default_data
    from ..choices import choose_data

    names = weights or [default_checkpoint().stem]
    builtin = builtin_checkpoints()
    checkpoints = [(Path(n).stem, load_checkpoint(builtin.get(n, Path(n)))) for n in names]
    model = checkpoints[0][1]
    dataset = choose_data(data, classes, model.config.labels) or default_data(model)[0]
    typical = open_dataset(calibration, None, "calibration") if calibration else None
    floats = [model for _, model in checkpoints if model.quantization is None]
    if typical is None and any(map(calibrates_on_others, floats)):
        warn("int8 is calibrated on built-in images; give typical ones with --calibration FOLDER")
    with steps() as step:
        result = compare_everything(
            checkpoints, dataset, images=images, only=only, calibration=typical, step=step
        )
    if json:
        emit_json(asdict(result))
    else:
        _print_comparison(result)


def _print_comparison(result: Comparison) -> None:
    from ...package.manifest import Selection
    from ..tables import COMPARISON_HEADER, comparison_row, images_text

    selection = Selection.model_validate(result.selection)
    rows = [comparison_row(row) for row in result.rows]
    rows += [["", target, sentence] for target, sentence in result.missing.items()]
    print_columns(COMPARISON_HEADER, rows)
    first = result.rows[0]
    console.print(
        f"{images_text(result.images, result.data, selection)}; differences and agreement to "
        f"{first.checkpoint} in {first.runtime} {first.precision}",
        markup=False,
    )
    for name, share in result.least_agreement.items():
        console.print(f"{name}: any two runtimes agree on at least {share:.2%}", markup=False)
