"""Which part of a package leaves the reference first, and how far it is away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..config.recipe import parse_recipe
from ..data.sample import Dataset
from ..model.create import ReferenceModel
from ..package.folder import Package
from .parity import LEAST_SQNR_DB
from .taps import TapDistance, by_block
from .twins import run_twin


def distances(
    package: Package,
    model: ReferenceModel,
    pixels: np.ndarray,
    calibration: Dataset | None = None,
) -> list[TapDistance]:
    """Compare every part of a package with the reference, by a twin that outputs them all.

    Parameters
    ----------
    package : Package
        The package.
    model : SepViT or DenseModel
        The reference that it was made from.
    pixels : numpy.ndarray
        uint8 (1, H, W, 3), preprocessed.
    calibration : Dataset, optional
        The package's calibration images. Default: built-in ones.

    Returns
    -------
    list of TapDistance
        In the order of the network.

    Raises
    ------
    SepViTError
        If the package's recipe is of another version, or its runtime is missing.
    """
    manifest = package.manifest
    recipe = parse_recipe(manifest.recipe)
    outputs = run_twin(model, recipe, pixels, calibration=calibration)
    return by_block(outputs, model, pixels, manifest.precision)


def leaving_sentence(taps: Sequence[TapDistance], precision: str) -> str:
    """Name the first part that is too far from the reference; empty if none is."""
    first = next((tap for tap in taps if tap.leaves), None)
    if first is None:
        return ""
    return (
        f"{first.name} is the first part that is too far from the reference: its SQNR is "
        f"{first.sqnr_db:.1f} dB, at least {LEAST_SQNR_DB[precision]:g} dB expected for {precision}"
    )
