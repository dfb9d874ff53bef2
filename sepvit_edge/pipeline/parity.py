"""Distance between a package and the fp32 reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.sample import Taken
from ..errors import CheckFailed
from ..metrics import paired_difference, sqnr_db
from ..model.reference import SepViT
from ..package.manifest import Parity
from ..package.session import PackageSession
from ..quantization.interface import ProgramQuantization
from .outputs import Outputs, run_images


def measure_parity(
    session: PackageSession,
    model: SepViT,
    data: Taken,
    quantization: ProgramQuantization | None = None,
) -> Parity:
    """Compare a package with the reference, image by image.

    Parameters
    ----------
    session : PackageSession
        The package.
    model : SepViT
        The reference with the same weights.
    data : Taken
        Images that were neither trained nor calibrated on.
    quantization : ProgramQuantization, optional
        Integers and scales of an int8 package, to compare it with its float64 reference too.

    Returns
    -------
    Parity
        Figures rounded to four significant digits.

    Raises
    ------
    CheckFailed
        If the model was trained on some of the images.
    """
    return parity_between(run_images(session, data, model, quantization))


def parity_between(outputs: Outputs) -> Parity:
    """Compute the figures of a manifest from the logits of a package and of its reference."""
    assert outputs.reference is not None
    figures = parity_of(
        outputs.reference, outputs.logits, outputs.labels, outputs.data, outputs.data_sha256
    )
    further: dict[str, Any] = {"selection": outputs.selection}
    for name, others in (
        ("sqnr_quantized_db", outputs.quantized),
        ("sqnr_cpu_db", outputs.on_cpu),
    ):
        if others is not None:
            further[name] = round(sqnr_db(others, outputs.logits), 1)
    return figures.model_copy(update=further)


def parity_of(
    reference: np.ndarray,
    measured: np.ndarray,
    labels: list[int | None],
    data: str,
    data_sha256: str,
) -> Parity:
    """Compute the figures of a manifest from two arrays of logits (N, num_classes)."""
    predicted = [reference.argmax(1), measured.argmax(1)]
    figures: dict[str, Any] = {}
    if None not in labels:
        right = [prediction == np.array(labels) for prediction in predicted]
        difference, interval, p = paired_difference(right[0], right[1])
        figures = {
            "top1_reference": rounded(float(right[0].mean())),
            "top1_package": rounded(float(right[1].mean())),
            "top1_difference": rounded(difference),
            "top1_difference_interval": (rounded(interval[0]), rounded(interval[1])),
            "mcnemar_p": rounded(p),
        }
    return Parity(
        data=data,
        data_sha256=data_sha256,
        images=len(reference),
        max_abs_error=rounded(float(np.abs(reference - measured).max())),
        logits_range=rounded(float(reference.max() - reference.min())),
        sqnr_db=round(sqnr_db(reference, measured), 1),
        top1_agreement=rounded(float((predicted[0] == predicted[1]).mean())),
        **figures,
    )


# Rounding alone stays above this at every tap, with room: fp32 measures at least 110 dB, weights in
# fp16 56 dB, bfloat16 arithmetic 40 dB. A wrong scale in one block gives 20 dB or less.
LEAST_SQNR_DB = {"fp32": 80.0, "fp16": 35.0, "int8": 15.0}


def check_parity(measured: Parity, precision: str) -> None:
    """Reject a package whose logits are too far from the reference for its precision.

    Toolchains miscompile at times, without an error.

    Parameters
    ----------
    measured : Parity
        The package's; the SQNR against the same integers in torch is used if it was measured.
    precision : str
        The package's.

    Raises
    ------
    CheckFailed
        If rounding alone does not explain the distance.
    """
    noise, reference = measured.sqnr_quantized_db, "torch's int8"
    if noise is None:
        noise, reference = measured.sqnr_db, "fp32"
    if not noise >= LEAST_SQNR_DB[precision]:  # also if it is NaN
        raise CheckFailed(
            f"parity failed: SQNR against {reference} is {noise} dB, at least "
            f"{LEAST_SQNR_DB[precision]:g} dB expected for {precision}; the toolchain may have "
            "miscompiled the model: try another precision, or another version of the toolchain"
        )


@dataclass(frozen=True)
class DeviceDistance:
    """Distance of a device's logits to this machine's, of the same package.

    Attributes
    ----------
    images : int
        Number of images.
    identical : int
        Number of images with the same bits.
    max_abs_error, sqnr_db, top1_agreement : float
        Over all images.
    worst_image : str
        Image with the least SQNR.
    worst_sqnr_db : float
        Its SQNR.
    """

    images: int
    identical: int
    max_abs_error: float
    sqnr_db: float
    top1_agreement: float
    worst_image: str
    worst_sqnr_db: float


def compare_device(here: np.ndarray, device: np.ndarray, titles: Sequence[str]) -> DeviceDistance:
    """Compare a device's logits with this machine's, image by image.

    Parameters
    ----------
    here, device : numpy.ndarray
        float32 (N, num_classes).
    titles : sequence of str
        Name of each image.
    """
    each = [sqnr_db(a, b) for a, b in zip(here, device, strict=True)]
    worst = int(np.argmin(each))
    return DeviceDistance(
        images=len(here),
        identical=int((here == device).all(1).sum()),
        max_abs_error=rounded(float(np.abs(here - device).max())),
        sqnr_db=round(sqnr_db(here, device), 1),
        top1_agreement=rounded(float((here.argmax(1) == device.argmax(1)).mean())),
        worst_image=titles[worst],
        worst_sqnr_db=round(each[worst], 1),
    )


def check_device(here: np.ndarray, device: np.ndarray, precision: str) -> None:
    """Reject a device whose logits rounding alone does not explain.

    Raises
    ------
    CheckFailed
        If they are too far from this machine's for the package's precision.
    """
    noise, least = sqnr_db(here, device), LEAST_SQNR_DB[precision]
    if not noise >= least:
        raise CheckFailed(
            f"the device computes other logits than this machine: SQNR is {noise:.1f} dB, at least "
            f"{least:g} dB expected for {precision}; its accuracy is not the package's"
        )


def rounded(value: float) -> float:
    """Round to four significant digits; the others depend on the machine, not on the package."""
    return float(f"{value:.4g}")
