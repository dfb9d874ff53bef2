"""Scores of boxes: COCO's average precision, and how many boxes two models share."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..data.dense.sample import Objects
from ..errors import SepViTError
from ..postprocess.detection import Detections, overlaps


@dataclass(frozen=True)
class Precision:
    """Average precision over a set of images, by COCO's rules.

    Attributes
    ----------
    ap : float
        Mean over overlaps of 0.5, 0.55 ... 0.95 and over classes, 0..1.
    ap50 : float
        At an overlap of 0.5.
    by_class : dict
        Label -> AP50; classes without a box in the truth are left out.
    """

    ap: float
    ap50: float
    by_class: dict[str, float]


def check_installed() -> None:
    """Refuse to go on without the library that computes average precision.

    Raises
    ------
    SepViTError
        If it is not installed.
    """
    if find_spec("faster_coco_eval") is None:
        raise SepViTError(
            "average precision needs faster-coco-eval: pip install 'sepvit-edge[dense]'"
        )


def average_precision(
    truth: Sequence[Objects],
    found: Sequence[Detections],
    labels: Sequence[str],
    masks: bool = False,
) -> Precision:
    """Measure the boxes or the masks found in images.

    Parameters
    ----------
    truth : sequence of Objects
        The boxes of each image.
    found : sequence of Detections
        The boxes that a model finds in each, in pixels of the image.
    labels : sequence of str
        Class names.
    masks : bool
        Overlaps are those of masks, which both sides have; else of boxes.

    Raises
    ------
    SepViTError
        If faster-coco-eval is not installed, or no image has a box (or crowds alone).
    """
    check_installed()
    from faster_coco_eval import COCO, COCOeval_faster

    if not any((~objects.crowd).any() for objects in truth):
        raise SepViTError("no image has a box to find, so there is no average precision")
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO(_dataset(truth, labels))
        results = _results(truth, found)
        measured = expected.loadRes(results) if results else COCO(_dataset([], labels))
        evaluation = COCOeval_faster(expected, measured, "segm" if masks else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # overlap, recall, class, area, largest number; -1 where a class has no box
    table = evaluation.eval["precision"][:, :, :, 0, -1]
    known = {i for objects in truth for i in objects.classes[~objects.crowd].tolist()}
    rows = sorted(known)
    return Precision(
        ap=float(table[:, :, rows].mean()),
        ap50=float(table[0][:, rows].mean()),
        by_class={labels[i]: float(table[0, :, i].mean()) for i in rows},
    )


def _dataset(truth: Sequence[Objects], labels: Sequence[str]) -> dict[str, Any]:
    """Put boxes into COCO's form; numbers start at 1."""
    annotations: list[dict[str, Any]] = []
    for image, objects in enumerate(truth, 1):
        segments = objects.segments or (None,) * len(objects)
        rows = zip(objects.boxes, objects.classes, objects.crowd, segments, strict=True)
        for box, label, crowd, segment in rows:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(label) + 1,
                "bbox": (sides := coco_box(box)),
                "area": sides[2] * sides[3],
                "iscrowd": int(crowd),
            }
            if segment is not None:
                annotation["segmentation"] = segment
            annotations.append(annotation)
    sizes = [objects.size or (1, 1) for objects in truth]
    return {
        "info": {},
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes, 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(labels, 1)],
        "annotations": annotations,
    }


def _results(truth: Sequence[Objects], found: Sequence[Detections]) -> list[dict[str, Any]]:
    from faster_coco_eval.core import mask as coco_masks

    results = []
    for image, (objects, one) in enumerate(zip(truth, found, strict=True), 1):
        for i in range(len(one)):
            result = {
                "image_id": image,
                "category_id": int(one.classes[i]) + 1,
                "bbox": coco_box(one.boxes[i]),
                "score": float(one.scores[i]),
            }
            if one.masks is not None and objects.size is not None:
                whole = np.asfortranarray(one.masks[i].whole(objects.size), np.uint8)
                result["segmentation"] = coco_masks.encode(whole)
            results.append(result)
    return results


def coco_box(box: np.ndarray) -> list[float]:
    """Return left, top, width and height, as COCO's files have it, of left, top, right, bottom."""
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right - left, bottom - top]


def shared_boxes(first: Detections, second: Detections, overlap: float = 0.5) -> int:
    """Count the boxes of `second` that `first` has too.

    From the best one down, each takes the free box of its class in `first` that it overlaps most,
    if by at least `overlap`.

    Parameters
    ----------
    first, second : Detections
        What two models find in one image.
    overlap : float
        Least intersection over union.
    """
    if not len(first) or not len(second):
        return 0
    fits = overlaps(second.boxes, first.boxes)
    fits[second.classes[:, None] != first.classes[None]] = 0
    shared = 0
    for row in fits:
        best = int(row.argmax())
        if row[best] >= overlap:
            shared += 1
            fits[:, best] = -1
    return shared
