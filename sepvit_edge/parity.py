"""Distance between a package and the fp32 reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .data import Dataset, content_digests, preprocess
from .package import PackageSession, Parity
from .reference import SepViT

_BATCH = 16


def reference_logits(model: SepViT, pixels: np.ndarray) -> np.ndarray:
    """Run the reference on preprocessed pixels, in fp32 on the CPU.

    Parameters
    ----------
    model : SepViT
        In evaluation mode.
    pixels : numpy.ndarray
        uint8 (N, image_size, image_size, 3).

    Returns
    -------
    numpy.ndarray
        float32 (N, num_classes).
    """
    with torch.no_grad():
        batches = torch.from_numpy(pixels).split(_BATCH)
        return torch.cat([model(normalize(model, batch)) for batch in batches]).numpy()


def normalize(model: SepViT, pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W, 3) pixels to the reference's normalised float32 (N, 3, H, W)."""
    rule = model.config.preprocessing
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (rule.mean, rule.std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def sqnr_db(signal: np.ndarray, measured: np.ndarray) -> float:
    """Signal-to-quantisation-noise ratio in dB: 10 log10(sum s^2 / sum (s - m)^2)."""
    s, m = signal.astype(np.float64), measured.astype(np.float64)
    noise = float(((s - m) ** 2).sum())
    return math.inf if noise == 0 else 10 * math.log10(float((s**2).sum()) / noise)


def measure(
    session: PackageSession,
    model: SepViT,
    data: Dataset,
    limit: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
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
        Take the first so many images only.
    advance : callable
        Told the number of images done, for a progress bar.

    Returns
    -------
    Parity
        Figures rounded to four significant digits.
    """
    count = min(len(data), limit or len(data))
    config = model.config
    references, measured, labels = [], [], []
    digest = hashlib.sha256()
    for start in range(0, count, _BATCH):
        samples = [data[i] for i in range(start, min(start + _BATCH, count))]
        pixels = np.stack(
            [preprocess(s.image, config.preprocessing, config.image_size) for s in samples]
        )
        digest.update(pixels.data)
        references.append(reference_logits(model, pixels))
        measured.append(session.run_pixels(pixels)[0])
        labels += [s.label for s in samples]
        advance(len(samples))
    return compare(
        np.concatenate(references),
        np.concatenate(measured),
        labels,
        data.name,
        digest.hexdigest(),
    )


def compare(
    reference: np.ndarray,
    measured: np.ndarray,
    labels: list[int | None],
    data: str,
    data_sha256: str,
) -> Parity:
    """Turn two arrays of logits (N, num_classes) into the figures of a manifest."""
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
    noise = sqnr_db(reference, measured)
    return Parity(
        data=data,
        data_sha256=data_sha256,
        images=len(reference),
        max_abs_error=rounded(float(np.abs(reference - measured).max())),
        logits_range=rounded(float(reference.max() - reference.min())),
        # Identical logits have no noise; 200 dB is beyond what float32 can tell apart.
        sqnr_db=round(min(noise, 200.0), 1),
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
        bool (N,): which images each got right.

    Returns
    -------
    difference : float
        Accuracy of `second` minus that of `first`.
    interval : tuple of float
        95 % confidence interval (Wald's for paired proportions).
    p : float
        Exact McNemar test: the chance of a difference like this if both were equally good.
    """
    from scipy.stats import binomtest

    n = len(first)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    difference = (gained - lost) / n
    spread = 1.96 * math.sqrt(max(gained + lost - (gained - lost) ** 2 / n, 0)) / n
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return difference, (difference - spread, difference + spread), p


def rounded(value: float) -> float:
    """Four significant digits: what is beyond them depends on the machine, not on the package."""
    return float(f"{value:.4g}")


def data_digest(data: Dataset) -> str:
    """One digest over the content of all images of a data set, whatever their order."""
    return hashlib.sha256("".join(sorted(content_digests(data))).encode()).hexdigest()
