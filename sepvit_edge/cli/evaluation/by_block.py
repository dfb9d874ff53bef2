"""Distance of every part of packages to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ...errors import CheckFailed
from ..console import emit_json, steps

if TYPE_CHECKING:
    from ...package.folder import Package


def evaluate_by_block(
    packages: Sequence[Package],
    checkpoint: str | None,
    data: str,
    classes: str,
    calibration: str,
    json: bool,
) -> None:
    """Compare every part of the packages with their checkpoint, on the first image.

    Raises
    ------
    CheckFailed
        Naming the first part of each package that is too far away.
    """
    from ...data.choose import open_dataset
    from ...data.preprocess import input_pixels
    from ...pipeline.by_block import distances, leaving_sentence
    from ...pipeline.defaults import data_for
    from ...pipeline.verify import reference_of
    from ..by_block_table import print_by_block
    from ..choices import choose_data

    images = open_dataset(calibration, None, "calibration") if calibration else None
    names = [package.path.name for package in packages]
    if len(set(names)) < len(names):
        names = [str(package.path) for package in packages]
    found, faults = {}, []
    with steps() as step:
        for name, package in zip(names, packages, strict=True):
            step(f"building and running the tapped twin of {name}")
            model = reference_of(package, checkpoint)
            dataset = choose_data(data, classes, package.labels)
            if dataset is None:
                dataset, _ = data_for(package.manifest.source.trained_on, 1)
            pixels = input_pixels([dataset[0].image], model.config)
            taps = found[name] = distances(package, model, pixels, images)
            if sentence := leaving_sentence(taps, package.manifest.precision):
                faults.append(f"{name}: {sentence}" if len(packages) > 1 else sentence)
    if json:
        tables = {name: [asdict(tap) for tap in taps] for name, taps in found.items()}
        emit_json(tables if len(tables) > 1 else next(iter(tables.values())))
    else:
        print_by_block(found)
    if faults:
        raise CheckFailed("; ".join(faults))
