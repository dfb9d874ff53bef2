"""Distance between a package and the fp32 reference."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.sample import Taken
from ..errors import CheckFailed
from ..metrics import Sqnr, paired_difference, sqnr_db
from ..model.reference import SepViT
from ..package.manifest import Parity
from ..package.session import PackageSession
from ..quantization.interface import ProgramQuantization
from .outputs import Rows, RunFacts, run_images


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
    meter = ParityMeter()
    return meter.parity(run_images(session, data, model, quantization, take=meter.add))


class ParityMeter:
    """The figures of a manifest, from logits that come piece by piece."""

    def __init__(self) -> None:
        self._images = self._same = 0
        self._error = 0.0
        self._low, self._high = math.inf, -math.inf
        # Of each image, whether the reference is right, and whether the package is: 2 bytes.
        self._right: tuple[list[np.ndarray], list[np.ndarray]] = [], []
        self._labelled = True
        self._ratios: defaultdict[str, Sqnr] = defaultdict(Sqnr)

    def add(self, rows: Rows) -> None:
        """Count some images."""
        reference, measured = rows.logits["reference"], rows.logits["logits"]
        self._images += len(measured)
        # fmax and the like would hide a NaN.
        self._error = float(np.maximum(self._error, np.abs(reference - measured).max()))
        self._low = float(np.minimum(self._low, reference.min()))
        self._high = float(np.maximum(self._high, reference.max()))
        predicted = reference.argmax(1), measured.argmax(1)
        self._same += int((predicted[0] == predicted[1]).sum())
        self._labelled &= None not in rows.labels
        if self._labelled:
            for right, prediction in zip(self._right, predicted, strict=True):
                right.append(prediction == np.array(rows.labels))
        for name in ("reference", "quantized", "on_cpu"):
            if name in rows.logits:
                self._ratios[name].add(rows.logits[name], measured)

    def parity(self, of: RunFacts) -> Parity:
        """Return the figures of all images."""
        figures: dict[str, Any] = {}
        if self._labelled:
            right = [np.concatenate(pieces) for pieces in self._right]
            difference, interval, p = paired_difference(right[0], right[1])
            figures = {
                "top1_reference": rounded(float(right[0].mean())),
                "top1_package": rounded(float(right[1].mean())),
                "top1_difference": rounded(difference),
                "top1_difference_interval": (rounded(interval[0]), rounded(interval[1])),
                "mcnemar_p": rounded(p),
            }
        for name, ratio in (("sqnr_quantized_db", "quantized"), ("sqnr_cpu_db", "on_cpu")):
            if ratio in self._ratios:
                figures[name] = round(self._ratios[ratio].db, 1)
        return Parity(
            data=of.data,
            data_sha256=of.data_sha256,
            selection=of.selection,
            images=self._images,
            max_abs_error=rounded(self._error),
            logits_range=rounded(self._high - self._low),
            sqnr_db=round(self._ratios["reference"].db, 1),
            top1_agreement=rounded(self._same / self._images),
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


class DeviceMeter:
    """The distance of a device's logits to this machine's, of logits that come piece by piece."""

    def __init__(self) -> None:
        self._images = self._identical = self._same = 0
        self._error = 0.0
        self._ratio = Sqnr()
        self._worst = "", math.inf

    def add(self, here: np.ndarray, device: np.ndarray, titles: Sequence[str]) -> None:
        """Count some images.

        Parameters
        ----------
        here, device : numpy.ndarray
            float32 (N, num_classes).
        titles : sequence of str
            Name of each image.
        """
        self._images += len(here)
        self._identical += int((here == device).all(1).sum())
        self._same += int((here.argmax(1) == device.argmax(1)).sum())
        self._error = max(self._error, float(np.abs(here - device).max()))
        self._ratio.add(here, device)
        for title, a, b in zip(titles, here, device, strict=True):
            if (noise := sqnr_db(a, b)) < self._worst[1]:
                self._worst = title, noise

    def distance(self) -> DeviceDistance:
        """Return the distance over all images."""
        title, noise = self._worst
        return DeviceDistance(
            images=self._images,
            identical=self._identical,
            max_abs_error=rounded(self._error),
            sqnr_db=round(self._ratio.db, 1),
            top1_agreement=rounded(self._same / self._images),
            worst_image=title,
            worst_sqnr_db=round(noise, 1),
        )


def check_device(measured: DeviceDistance, precision: str) -> None:
    """Reject a device whose logits rounding alone does not explain.

    Raises
    ------
    CheckFailed
        If they are too far from this machine's for the package's precision.
    """
    least = LEAST_SQNR_DB[precision]
    if not measured.sqnr_db >= least:
        raise CheckFailed(
            f"the device computes other logits than this machine: SQNR is {measured.sqnr_db} dB, "
            f"at least {least:g} dB expected for {precision}; its accuracy is not the package's"
        )


def rounded(value: float) -> float:
    """Round to four significant digits; the others depend on the machine, not on the package."""
    return float(f"{value:.4g}")
