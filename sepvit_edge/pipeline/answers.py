"""What a dense package finds in an image: a class map, boxes or masks, in the image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.dense.run_lengths import run_lengths
from ..data.fit import Fit
from ..data.preprocess import fit_image
from ..errors import SepViTError
from ..package.folder import Package
from ..package.manifest import MEANINGS
from ..package.postprocessing import PostprocessingRule, SegmentationRule, TwoStageRule
from ..package.session import PackageSession
from ..postprocess.detection import Detections, detect
from ..postprocess.masks import paste
from ..postprocess.segmentation import class_map
from ..postprocess.two_stage import Ended, Heads, find_instances
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
        Detection: boxes in pixels of the image, with masks where the model finds them.
    """

    size: tuple[int, int]
    classes: np.ndarray | None = None
    found: Detections | None = None

    def shown(self, least: float) -> Answer:
        """Return the answer without boxes whose score is below `least`."""
        if self.found is None:
            return self
        return replace(self, found=self.found.taken((self.found.scores >= least).nonzero()[0]))


def answer(session: PackageSession, image: Image.Image | np.ndarray | str | Path) -> Answer:
    """Run a dense package on one image.

    Raises
    ------
    SepViTError
        If the image cannot be used, or the package's manifest has no rule for its outputs.
    """
    pixels, fit = fitted(session.package, image)
    return answer_of(session.package, session.run_pixels(pixels), fit, session.run_graph)


def fitted(
    package: Package, image: Image.Image | np.ndarray | str | Path
) -> tuple[np.ndarray, Fit]:
    """Return the input pixels of an image, uint8 (1, H, W, 3), and how it lies in them."""
    facts = package.manifest
    assert facts.model.input_size is not None  # of every dense package
    pixels, fit = fit_image(image, facts.input.mean, facts.model.input_size)
    return pixels[None], fit


def answer_of(
    package: Package, outputs: Sequence[np.ndarray], fit: Fit, heads: Heads | None = None
) -> Answer:
    """Finish the outputs (1, ...) of a package, or of its reference, by the manifest's rule.

    `heads` runs the networks behind the first one, of a task that has some.
    """
    manifest = package.manifest
    rule, size = manifest.postprocessing, manifest.model.input_size
    if rule is None or size is None:
        raise SepViTError(
            f"{package.path} does not say how its outputs become an answer; export it again"
        )
    named = {facts.meaning: x[0] for facts, x in zip(manifest.outputs, outputs, strict=True)}
    wanted = [named[meaning] for meaning in MEANINGS[manifest.task]]
    return finished(wanted, rule, size, fit, heads)


def finished(
    outputs: Sequence[np.ndarray],
    rule: PostprocessingRule,
    size: tuple[int, int],
    fit: Fit,
    heads: Heads | None = None,
    ended: Ended = lambda _: None,
) -> Answer:
    """Turn the outputs of one image into its answer.

    Parameters
    ----------
    outputs : sequence of numpy.ndarray
        float32: logits (classes, h, w); or class logits (A, classes) and box deltas (A, 4); or the
        first stage of a detector with two.
    rule : SegmentationRule, DetectionRule or TwoStageRule
        The model's.
    size : tuple of int
        Height and width of the input.
    fit : Fit
        How the image lies in it.
    heads : callable, optional
        Runs the other stages.
    ended : callable
        Called with the name of each step of the other stages when it ended.
    """
    if isinstance(rule, SegmentationRule):
        return Answer(fit.original, classes=fit.map_back(class_map(outputs[0], rule)))
    if isinstance(rule, TwoStageRule):
        assert heads is not None
        found, masks = find_instances(outputs, heads, rule, size, fit.content, ended)
        moved = replace(found, boxes=fit.boxes_back(found.boxes))
        pasted = (
            paste(each, box, fit.original, rule.mask_threshold)
            for each, box in zip(masks, moved.boxes, strict=True)
        )
        whole = replace(moved, masks=tuple(pasted))
        ended("masks")
        return Answer(fit.original, found=whole)
    logits, deltas = outputs
    found = detect(logits, deltas, rule, size, fit.content)
    return Answer(fit.original, found=replace(found, boxes=fit.boxes_back(found.boxes)))


def answer_json(one: Answer, labels: Sequence[str]) -> dict[str, Any]:
    """Return an answer in COCO's terms: boxes as left, top, width and height; masks as RLE.

    Masks of objects stand with their boxes.

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
    for box, mask in zip(boxes, one.found.masks or (), strict=False):
        box |= {
            "area": int(mask.pixels.sum()),
            "segmentation": run_lengths(mask.whole(one.size)),
        }
    return size | {"boxes": boxes}
