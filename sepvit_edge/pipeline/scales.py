"""Ways to choose the scales of int8, compared on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.sample import Dataset
from ..metrics import sqnr_db
from ..model.logits import reference_logits
from ..model.reference import SepViT
from ..quantization.calibration import METHODS, calibrate
from ..quantization.scheme import LayerQuantization


@dataclass(frozen=True)
class ScaleChoice:
    """One way to choose scales, and the cost of its rounding.

    Attributes
    ----------
    scales : str
        Method for the scales of activations.
    sqnr_db : float
        SQNR of the logits against the fp32 reference.
    top1_agreement : float
        Share of images with the same class as the reference, 0..1.
    top1 : float or None
        Accuracy, 0..1; None for images without labels.
    """

    scales: str
    sqnr_db: float
    top1_agreement: float
    top1: float | None


def compare_scales(
    model: SepViT,
    calibration: Dataset,
    pixels: np.ndarray,
    labels: Sequence[int | None],
    step: Callable[[str], None] = lambda _: None,
) -> Iterator[ScaleChoice]:
    """Calibrate a model by every method.

    Parameters
    ----------
    model : SepViT
        The reference.
    calibration : Dataset
        Typical images.
    pixels : numpy.ndarray
        uint8 (N, image_size, image_size, 3), none of the calibration images.
    labels : sequence of int or None
        Classes of the images; None where unknown.
    step : callable
        Called with the name of each step, for a progress display.

    Yields
    ------
    ScaleChoice
        The default method first.
    """
    reference = reference_logits(model, pixels)
    for method in METHODS:
        step(f"scales by {method}")
        quantization = calibrate(model, calibration, method=method)
        logits = LayerQuantization(quantization).reference(model)(pixels)
        classes = logits.argmax(1)
        yield ScaleChoice(
            scales=method,
            sqnr_db=round(sqnr_db(reference, logits), 1),
            top1_agreement=float((classes == reference.argmax(1)).mean()),
            top1=None if None in labels else float((classes == np.array(labels)).mean()),
        )
