"""The accuracy report of a classifier: what it gets right, what it confuses, how sure it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .charts import load_pyplot, picture_text
from .errors import CheckFailed, SepViTError
from .files import replacing_file
from .metrics import wilson_interval

CALIBRATION_BINS = 15
_TOP = 5
# Above this, numbers in the cells and names at the edges are too small to read.
_MOST_WRITTEN = 60


@dataclass(frozen=True)
class ClassAccuracy:
    """Result of the images of one class.

    Attributes
    ----------
    name : str
        The class.
    images : int
        Number of its images; may be 0.
    right : int
        Number of those that were classified correctly.
    """

    name: str
    images: int
    right: int

    @property
    def accuracy(self) -> float | None:
        """Share of the images that were classified correctly, 0..1; None without images."""
        return self.right / self.images if self.images else None


@dataclass(frozen=True)
class Confusion:
    """Number of images of one class that were taken for another.

    Attributes
    ----------
    true, predicted : str
        The classes.
    images : int
        At least 1.
    """

    true: str
    predicted: str
    images: int

    def __str__(self) -> str:
        return f"{self.true} taken for {self.predicted}: {self.images}"


@dataclass(frozen=True)
class AccuracyReport:
    """Accuracy of a classifier on labelled images.

    Attributes
    ----------
    images : int
        Number of images, at least 1.
    top1 : float
        Share of images whose highest logit is the true class, 0..1.
    top1_interval : tuple of float
        Its 95 % confidence interval (Wilson).
    top5 : float or None
        Share of images whose five highest logits hold the true class; None up to five classes.
    calibration_error : float
        Expected calibration error, 0..1: the distance between the probability that softmax gives
        the predicted class and the accuracy, averaged over 15 bins of equal width.
    classes : tuple of ClassAccuracy
        In the order of the logits.
    confusion_matrix : tuple of tuple of int
        Numbers of images: a row for each true class, a column for each predicted one.
    """

    images: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    calibration_error: float
    classes: tuple[ClassAccuracy, ...]
    confusion_matrix: tuple[tuple[int, ...], ...]

    def confusions(self) -> list[Confusion]:
        """Return every pair of classes that was confused, the most frequent first."""
        names = [one.name for one in self.classes]
        found = [
            Confusion(names[true], names[predicted], images)
            for true, row in enumerate(self.confusion_matrix)
            for predicted, images in enumerate(row)
            if images and true != predicted
        ]
        return sorted(found, key=lambda one: -one.images)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a document for JSON, with the accuracy of every class."""
        return {
            "images": self.images,
            "top1": self.top1,
            "top1_interval": list(self.top1_interval),
            "top5": self.top5,
            "calibration_error": self.calibration_error,
            "classes": [{**vars(one), "accuracy": one.accuracy} for one in self.classes],
            "confusion_matrix": [list(row) for row in self.confusion_matrix],
        }


def accuracy_report(
    logits: np.ndarray, labels: Sequence[int] | np.ndarray, names: Sequence[str] | None = None
) -> AccuracyReport:
    """Compute the accuracy report from logits and labels.

    Parameters
    ----------
    logits : numpy.ndarray
        Floating point (N, C), before softmax, at least one image and two classes.
    labels : sequence of int or numpy.ndarray
        Index of each image's true class (N,), 0..C-1.
    names : sequence of str, optional
        The C classes. Default: their numbers.

    Raises
    ------
    SepViTError
        If there are no images, or labels or names do not fit the logits.
    CheckFailed
        If a logit is NaN or infinite.

    Examples
    --------
    >>> logits = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    >>> report = accuracy_report(logits, [0, 0, 1, 1], ("glass", "plastic"))
    >>> report.top1
    0.75
    >>> print(*report.confusions())
    plastic taken for glass: 1
    """
    truth = np.asarray(labels, dtype=np.int64)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise SepViTError(f"logits of shape (N, C) with at least two classes, not {logits.shape}")
    classes = logits.shape[1]
    if names is not None and len(names) != classes:
        raise SepViTError(f"the model has {classes} classes, and {len(names)} names were given")
    meter = AccuracyMeter([str(i) for i in range(classes)] if names is None else names)
    meter.add(logits, truth)
    return meter.report()


class AccuracyMeter:
    """The accuracy report of logits that come piece by piece; see `accuracy_report`.

    Parameters
    ----------
    names : sequence of str
        The C classes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        from torchmetrics.classification import (
            MulticlassAccuracy,
            MulticlassCalibrationError,
            MulticlassConfusionMatrix,
        )

        classes = len(names)
        # Of this process's images: where several train, one measures, and would wait for the rest.
        alone: dict[str, Any] = {"sync_on_compute": False}
        self._names = names
        self._images = self._broken = 0
        self._confusions = MulticlassConfusionMatrix(classes, **alone)
        # Of each image it keeps the largest probability, and whether it is right: 8 bytes.
        self._calibration = MulticlassCalibrationError(classes, n_bins=CALIBRATION_BINS, **alone)
        self._top5 = None
        if classes > _TOP:
            self._top5 = MulticlassAccuracy(classes, top_k=_TOP, average="micro", **alone)

    def add(self, logits: np.ndarray, labels: Sequence[int] | np.ndarray) -> None:
        """Count some images, by their logits (N, C) and classes (N,)."""
        import torch

        truth, classes = np.asarray(labels, dtype=np.int64), len(self._names)
        _check_labels(logits, truth, classes)
        self._images += len(truth)
        finite = np.isfinite(logits).all(1)
        self._broken += int((~finite).sum())
        if not finite.all() or not len(truth):
            return
        target = torch.from_numpy(truth)
        # The class of two equal logits is numpy's everywhere: the first.
        self._confusions.update(torch.from_numpy(logits.argmax(1)), target)
        self._calibration.update(torch.from_numpy(_below_one(softmax(logits))), target)
        if self._top5 is not None:
            self._top5.update(torch.from_numpy(logits.astype(np.float64)), target)

    def report(self) -> AccuracyReport:
        """Return the report of all images.

        Raises
        ------
        SepViTError
            If there are none.
        CheckFailed
            If a logit is NaN or infinite.
        """
        if not self._images:
            raise SepViTError("there are no images to measure the accuracy on")
        if self._broken:
            raise CheckFailed(
                f"the logits of {self._broken} of {self._images} images are not finite (NaN or "
                "infinity): the weights are broken, or the toolchain miscompiled the model"
            )
        matrix = self._confusions.compute().tolist()
        right = [matrix[i][i] for i in range(len(matrix))]
        return AccuracyReport(
            images=self._images,
            top1=sum(right) / self._images,
            top1_interval=wilson_interval(sum(right), self._images),
            top5=None if self._top5 is None else self._top5.compute().item(),
            calibration_error=self._calibration.compute().item(),
            classes=tuple(map(ClassAccuracy, self._names, map(sum, matrix), right)),
            confusion_matrix=tuple(map(tuple, matrix)),
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities (N, C) of logits (N, C), in float64."""
    shifted = logits.astype(np.float64)
    exponents = np.exp(shifted - shifted.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def worst_images(
    logits: np.ndarray, labels: Sequence[int] | np.ndarray, count: int = 24
) -> list[int]:
    """Return the images to look at first: those whose true class gets the lowest probability.

    Parameters
    ----------
    logits : numpy.ndarray
        (N, C).
    labels : sequence of int or numpy.ndarray
        Index of each image's true class (N,).
    count : int
        Largest number of images.

    Returns
    -------
    list of int
        Indices, the worst image first.
    """
    truth = np.asarray(labels, dtype=np.int64)
    shifted = logits.astype(np.float64)
    loss = np.logaddexp.reduce(shifted, axis=1) - shifted[np.arange(len(truth)), truth]
    return [int(i) for i in np.argsort(-loss, kind="stable")[:count]]


def draw_confusion(report: AccuracyReport, path: Path, title: str = "") -> None:
    """Draw the confusion matrix as a PNG: rows are true classes, shades shares of the row.

    Parameters
    ----------
    report : AccuracyReport
        Up to 60 classes are named, and their cells hold the number of images.
    path : Path
        The file to write.
    title : str
        What was measured, in one line; top-1 is added.

    Raises
    ------
    SepViTError
        If matplotlib is not installed.
    """
    plt = load_pyplot()
    matrix = np.array(report.confusion_matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(3 + 0.35 * len(matrix), 24)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    low, high = report.top1_interval
    measured = f"top-1 {report.top1:.1%} ({low:.1%} to {high:.1%}) of {report.images} images"
    axes.set_title(f"{picture_text(title, 70)}\n{measured}".strip(), parse_math=False, fontsize=10)
    if len(matrix) <= _MOST_WRITTEN:
        names = [picture_text(one.name) for one in report.classes]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
        for (row, column), images in np.ndenumerate(matrix):
            if images:
                colour = "white" if shares[row, column] > 0.5 else "black"
                place = {"ha": "center", "va": "center", "color": colour, "fontsize": 8}
                axes.text(column, row, str(images), **place)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.7)
    with replacing_file(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        figure.savefig(partial, dpi=120, format="png")
    plt.close(figure)


def _below_one(probabilities: np.ndarray) -> np.ndarray:
    """Keep 1.0 in the last bin; torchmetrics, in float32, would give it another one."""
    return np.minimum(probabilities, np.nextafter(np.float32(1), np.float32(0)))


def _check_labels(logits: np.ndarray, labels: np.ndarray, classes: int) -> None:
    images = len(logits)
    if labels.shape != (images,):
        raise SepViTError(f"{images} images need {images} labels, not an array of {labels.shape}")
    if images and (labels.min() < 0 or labels.max() >= classes):
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise SepViTError(f"label {wrong} names none of the model's {classes} classes")
