"""Which part of a package leaves the reference first, and how far it is away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..config.recipe import parse_recipe
from ..data.sample import Dataset
from ..errors import SepViTError
from ..model.create import ReferenceModel
from ..package.folder import Package
from ..quantization.interface import ProgramQuantization
from .lowering import quantization_for
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
        If the package's recipe is of another version, its runtime is missing, or it was calibrated
        on other images.
    """
    manifest = package.manifest
    recipe = parse_recipe(manifest.recipe)
    quantization = None
    if manifest.precision == "int8":
        quantization = quantization_for(model, recipe, calibration)
        _check_calibration(package, quantization)
    outputs = run_twin(model, recipe, pixels, quantization=quantization)
    return by_block(outputs, model, pixels, manifest.precision)


def _check_calibration(package: Package, quantization: ProgramQuantization) -> None:
    """Refuse a twin whose scales come from other images than the package's."""
    facts, own = package.manifest.quantization, quantization.calibration
    if facts is None or facts.calibration_sha256 == own.sha256:
        return
    raise SepViTError(
        f"{package.path.name} was calibrated on {facts.calibration_images} images of "
        f"{facts.calibration_data}, not on these {own.images} of {own.data}: give its own images "
        "by --calibration"
    )


def leaving_sentence(taps: Sequence[TapDistance], precision: str) -> str:
    """Name the first part that is too far from the reference; empty if none is."""
    first = next((tap for tap in taps if tap.leaves), None)
    if first is None:
        return ""
    return (
        f"{first.name} is the first part that is too far from the reference: its SQNR is "
        f"{first.sqnr_db:.1f} dB, at least {LEAST_SQNR_DB[precision]:g} dB expected for {precision}"
    )
