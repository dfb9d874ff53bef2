"""Distance between a package and the fp32 reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.overlap import refuse_seen
from ..data.preprocess import preprocess_batch
from ..data.sample import SAMPLE_SEED, Dataset, Taken, take_evenly
from ..errors import CheckFailed
from ..metrics import mcnemar_p, sqnr_db
from ..model.logits import reference_logits
from ..model.reference import SepViT
from ..package.manifest import Parity, Selection
from ..package.session import PackageSession
from ..quantization.interface import ProgramQuantization

_BATCH = 16


def measure_parity(
    session: PackageSession,
    model: SepViT,
    data: Dataset,
    limit: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
    quantization: ProgramQuantization | None = None,
) -> Parity:
    """Compare a package with the reference, image by image.

    Parameters
    ----------
    session : PackageSession
        The package.
    model : SepViT
        The reference with the same weights.
    data : Dataset
        Images that were neither trained nor calibrated on.
    limit : int, optional
        Number of images to take, evenly over the classes. Default: all.
    advance : callable
        Called with the number of images done, for a progress bar.
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
    taken = take_evenly(data, limit)
    refuse_seen(taken, session.package.manifest.source.trained_on)
    count = len(taken)
    config = model.config
    references, measured, quantized, on_cpu, labels = [], [], [], [], []
    rounds_to = None if quantization is None else quantization.reference(model)
    digest = hashlib.sha256()
    for start in range(0, count, _BATCH):
        samples = [taken[i] for i in range(start, min(start + _BATCH, count))]
        images = [sample.image for sample in samples]
        pixels = preprocess_batch(images, config.preprocessing, config.image_size)
        digest.update(pixels.data)
        references.append(reference_logits(model, pixels))
        measured.append(session.run_pixels(pixels)[0])
        if (outputs := session.run_on_cpu(pixels)) is not None:
            on_cpu.append(outputs[0])
        if rounds_to is not None:
            quantized.append(rounds_to(pixels))
        labels += [s.label for s in samples]
        advance(len(samples))
    logits = np.concatenate(measured)
    figures = parity_of(np.concatenate(references), logits, labels, data.name, digest.hexdigest())
    further: dict[str, Any] = {"selection": selection_of(taken)}
    for name, others in (("sqnr_quantized_db", quantized), ("sqnr_cpu_db", on_cpu)):
        if others:
            further[name] = round(sqnr_db(np.concatenate(others), logits), 1)
    return figures.model_copy(update=further)


def selection_of(taken: Taken) -> Selection:
    """Describe a sample for results and manifests."""
    whole = len(taken) == taken.available
    over = "classes" if taken.labelled else "the set"
    return Selection(
        available=taken.available,
        rule="all" if whole else f"evenly over {over}",
        seed=None if whole else SAMPLE_SEED,
        class_rule=taken.class_rule,
        left_out=taken.left_out,
    )


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


def paired_difference(
    first: np.ndarray, second: np.ndarray
) -> tuple[float, tuple[float, float], float]:
    """Compare two accuracies on the same images.

    Parameters
    ----------
    first, second : numpy.ndarray
        bool (N,): True for each image that was classified correctly.

    Returns
    -------
    difference : float
        Accuracy of `second` minus that of `first`.
    interval : tuple of float
        95 % confidence interval (Wald's for paired proportions).
    p : float
        Exact McNemar test: the probability of such a difference between two equally good models.
    """
    n = len(first)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    difference = (gained - lost) / n
    spread = 1.96 * math.sqrt(max(gained + lost - (gained - lost) ** 2 / n, 0)) / n
    return difference, (difference - spread, difference + spread), mcnemar_p(gained, lost)


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


def rounded(value: float) -> float:
    """Round to four significant digits; the others depend on the machine, not on the package."""
    return float(f"{value:.4g}")
