"""How good a dense package is on images with masks or boxes, beside its reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..data.dense.sample import DenseDataset, DenseSample, Objects
from ..model.dense import DenseModel
from ..model.logits import reference_heads, reference_outputs
from ..package.session import PackageSession
from ..postprocess.detection import Detections
from ..scoring.detection import Precision, average_precision, check_installed
from ..scoring.segmentation import PixelCounts
from .agreement import Agreement
from .answers import Answer, answer_of, fitted
from .reading import Engine, run_here


@dataclass
class _Figures:
    """What is collected of one model over the images."""

    pixels: PixelCounts
    found: list[Detections] = field(default_factory=list)

    def add(self, one: Answer, mask: np.ndarray | None) -> None:
        if one.found is not None:
            self.found.append(one.found)
        elif mask is not None and one.classes is not None:
            self.pixels.add(mask, one.classes)

    def summary(self, truth: list[Objects]) -> dict[str, Any]:
        """Return mean IoU, or average precision, as JSON."""
        labels = self.pixels.labels
        if truth:
            figures = _precision(average_precision(truth, self.found, labels))
            if any(one.masks is not None for one in self.found):
                of_masks = _precision(average_precision(truth, self.found, labels, masks=True))
                figures |= {f"mask_{key}": value for key, value in of_masks.items()}
            return figures
        ious = zip(labels, self.pixels.ious.tolist(), strict=True)
        return {
            "miou": round(self.pixels.mean_iou, 4),
            "pixel_accuracy": round(self.pixels.accuracy, 4),
            "iou_by_class": {name: round(iou, 4) for name, iou in ious if not np.isnan(iou)},
        }


def _precision(measured: Precision) -> dict[str, Any]:
    return {
        "ap": round(measured.ap, 4),
        "ap50": round(measured.ap50, 4),
        "ap50_by_class": {k: round(v, 4) for k, v in measured.by_class.items()},
    }


@dataclass(frozen=True)
class _Measured:
    """What is known of an image, and found in it by package and reference."""

    mask: np.ndarray | None
    objects: Objects | None
    answers: list[Answer]


@dataclass(frozen=True)
class _Measure:
    """The work on each image."""

    session: PackageSession
    data: DenseDataset
    model: DenseModel | None
    parallel: ClassVar[bool] = False

    def read(self, index: int) -> DenseSample:
        return self.data[index]

    def run(self, piece: Sequence[DenseSample]) -> list[_Measured]:
        return [self._measured(sample) for sample in piece]

    def _measured(self, sample: DenseSample) -> _Measured:
        package, run = self.session.package, self.session.run_pixels
        pixels, fit = fitted(package, sample.image)
        answers = [answer_of(package, run(pixels), fit, self.session.run_graph)]
        if self.model is not None:
            outputs = reference_outputs(self.model, pixels)
            answers.append(answer_of(package, outputs, fit, reference_heads(self.model)))
        return _Measured(sample.mask, sample.objects, answers)


def score_dense(
    session: PackageSession,
    data: DenseDataset,
    model: DenseModel | None = None,
    images: int | None = None,
    advance: Callable[[int], None] = lambda images: None,
    engine: Engine = run_here,
) -> dict[str, Any]:
    """Measure a package on images with masks or boxes.

    Parameters
    ----------
    session : PackageSession
        The package.
    data : DenseDataset
        The images, with the package's classes.
    model : DenseModel, optional
        Its reference, to measure the same of it, and how far the two agree.
    images : int, optional
        Number of images, at equal distances over the data. Default: all.
    advance : callable
        Gets the number of images done, after each.
    engine : callable
        Where the images are read and run. Default: in this process.

    Returns
    -------
    dict
        As JSON: ``package`` and, of a reference, ``reference`` with their figures; then
        ``agreement``: see `Agreement`.

    Raises
    ------
    SepViTError
        If an image cannot be used, or a library is missing.
    """
    if session.package.manifest.task != "segmentation":
        check_installed()
    count = min(images or len(data), len(data))
    sides = [_Figures(PixelCounts(data.labels)) for _ in range(1 if model is None else 2)]
    truth: list[Objects] = []
    agreed = Agreement()
    places = [i * len(data) // count for i in range(count)]
    for piece in engine(places, _Measure(session, data, model), 1):
        for image in piece:
            for side, one in zip(sides, image.answers, strict=True):
                side.add(one, image.mask)
            if image.objects is not None:
                truth.append(image.objects)
            if model is not None:
                agreed.add(reference=image.answers[1], measured=image.answers[0])
            advance(1)
    report: dict[str, Any] = {"data": data.name, "images": count, "of": len(data)}
    names = ("package", "reference")
    report |= {name: side.summary(truth) for name, side in zip(names, sides, strict=False)}
    if model is not None:
        report["agreement"] = None if agreed.share is None else round(agreed.share, 6)
    return report
