"""What a dense package finds in images of any size: class maps and boxes, in the image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.fit import Fit
from ..data.preprocess import fit_image
from ..errors import SepViTError
from ..package.folder import Package
from ..package.manifest import MEANINGS
from ..package.postprocessing import PostprocessingRule, SegmentationRule
from ..package.session import PackageSession
from ..postprocess.detection import Detections, detect
from ..postprocess.segmentation import class_map
from ..scoring.detection import coco_box


@dataclass(frozen=True)
class Answer:
    """What is found in one image.

    Attributes
    ----------
    size : tuple of int
        Height and width of the image, upright.
    classes : numpy.ndarray or None
        Segmentation: the class of each pixel, uint16 (H, W).
    found : Detections or None
        Detection: boxes in pixels of the image.
    """

    size: tuple[int, int]
    classes: np.ndarray | None = None
    found: Detections | None = None

    def shown(self, least: float) -> Answer:
        """Return the answer without boxes whose score is below `least`."""
        if self.found is None:
            return self
        found = self.found
        kept = found.scores >= least
        left = Detections(found.boxes[kept], found.scores[kept], found.classes[kept])
        return replace(self, found=left)


def answer(session: PackageSession, image: Image.Image | np.ndarray | str | Path) -> Answer:
    """Run a dense package on one image.

    Raises
    ------
    SepViTError
        If the image cannot be used, or the package's manifest has no rule for its outputs.
    """
    pixels, fit = fitted(session.package, image)
    return answer_of(session.package, session.run_pixels(pixels), fit)


def fitted(
    package: Package, image: Image.Image | np.ndarray | str | Path
) -> tuple[np.ndarray, Fit]:
    """Return the input pixels of an image, uint8 (1, H, W, 3), and how it lies in them."""
    facts = package.manifest
    assert facts.model.input_size is not None  # of every dense package
    pixels, fit = fit_image(image, facts.input.mean, facts.model.input_size)
    return pixels[None], fit


def answer_of(package: Package, outputs: Sequence[np.ndarray], fit: Fit) -> Answer:
    """Finish the outputs (1, ...) of a package, or of its reference, by the manifest's rule."""
    manifest = package.manifest
    rule, size = manifest.postprocessing, manifest.model.input_size
    if rule is None or size is None:
        raise SepViTError(
            f"{package.path} does not say how its outputs become an answer; export it again"
        )
    named = {facts.meaning: x[0] for facts, x in zip(manifest.outputs, outputs, strict=True)}
    return finished([named[meaning] for meaning in MEANINGS[manifest.task]], rule, size, fit)


def finished(
    outputs: Sequence[np.ndarray], rule: PostprocessingRule, size: tuple[int, int], fit: Fit
) -> Answer:
    """Turn the outputs of one image into its answer.

    Parameters
    ----------
    outputs : sequence of numpy.ndarray
        float32: logits (classes, h, w); or class logits (A, classes) and box deltas (A, 4).
    rule : SegmentationRule or DetectionRule
        The model's.
    size : tuple of int
        Height and width of the input.
    fit : Fit
        How the image lies in it.
    """
    if isinstance(rule, SegmentationRule):
        return Answer(fit.original, classes=fit.map_back(class_map(outputs[0], rule)))
    logits, deltas = outputs
    boxes = detect(logits, deltas, rule, size, fit.content)
    moved = Detections(fit.boxes_back(boxes.boxes), boxes.scores, boxes.classes)
    return Answer(fit.original, found=moved)


def answer_json(one: Answer, labels: Sequence[str]) -> dict[str, Any]:
    """Return an answer in COCO's terms: boxes as left, top, width and height; masks as RLE.

    A category's id is its class plus 1, as COCO's start at 1.
    """

    def category(index: int) -> dict[str, Any]:
        return {"category_id": index + 1, "label": labels[index]}

    size = {"height": one.size[0], "width": one.size[1]}
    if one.classes is not None:
        present = [int(index) for index in np.unique(one.classes)]
        segments = [
            category(index)
            | {
                "area": int((one.classes == index).sum()),
                "segmentation": run_lengths(one.classes == index),
            }
            for index in present
        ]
        return size | {"segments": segments}
    assert one.found is not None
    rows = zip(one.found.boxes, one.found.scores, one.found.classes, strict=True)
    boxes = [
        category(int(index)) | {"bbox": coco_box(box), "score": float(score)}
        for box, score, index in rows
    ]
    return size | {"boxes": boxes}


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Return COCO's uncompressed RLE of a mask: lengths of runs, by columns, zeros first.

    Parameters
    ----------
    mask : numpy.ndarray
        bool (H, W).

    Examples
    --------
    >>> run_lengths(np.array([[True, False], [True, True]]))
    {'size': [2, 2], 'counts': [0, 2, 1, 1]}
    """
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    return {"size": list(mask.shape), "counts": counts}
