"""Vectors of dense models: the input that holds an image whole, class maps, boxes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from noise import noise

from sepvit_edge.data.preprocess import fit_image
from sepvit_edge.package.postprocessing import DetectionRule, SegmentationRule
from sepvit_edge.postprocess.detection import Detections, anchors, detect
from sepvit_edge.postprocess.exponential import exp
from sepvit_edge.postprocess.segmentation import class_map

_MEAN = (0.485, 0.456, 0.406)


def numbers(count: int, seed: int, middle: int, divisor: int) -> np.ndarray:
    """Numbers that every language makes for itself: float32, ``(byte - middle) / divisor``.

    The bytes are those of `noise`. All of the numbers are exact.
    """
    data = noise(count, 1, seed).reshape(-1)[:count].astype(np.float32)
    return (data - np.float32(middle)) / np.float32(divisor)


def fit_cases() -> list[dict[str, Any]]:
    """An image of any size in an input, and the way of boxes and class maps back."""
    rng = np.random.default_rng(5)
    sizes = [(64, 64), (2, 2), (200, 3), (3, 200), (640, 480), (97, 61)]
    sizes += [tuple(map(int, rng.integers(2, 300, 2))) for _ in range(20)]
    cases = []
    for seed, (width, height) in enumerate(sizes, start=2001):
        size = ((64, 64), (64, 96), (96, 64))[seed % 3]
        pixels, fit = fit_image(noise(width, height, seed), _MEAN, size)
        box = numbers(4, seed, -10, 4)
        classes = noise(*size[::-1], seed + 7)[..., 0] // 16
        cases.append(
            {
                "width": width,
                "height": height,
                "seed": seed,
                "mean": list(_MEAN),
                "input": [size[1], size[0]],
                "content": [fit.content[1], fit.content[0]],
                "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
                "box": box.tolist(),
                "box_back": fit.boxes_back(box[None])[0].tolist(),
                "map_back_sha256": hashlib.sha256(fit.map_back(classes).tobytes()).hexdigest(),
            }
        )
    return cases


def exponential_cases() -> list[dict[str, Any]]:
    """The exponential function, exactly as the rule computes it."""
    rng = np.random.default_rng(6)
    x = np.concatenate(
        [[0, 1, -1, 0.5, 88, -88, 89, -1e9, 4.135166556742356], rng.uniform(-88, 88, 60)]
    )
    pairs = zip(x.tolist(), exp(x).tolist(), strict=True)
    return [{"x": value, "exp": result} for value, result in pairs]


def class_map_cases() -> list[dict[str, Any]]:
    """Logits by seed, and the digest of their class map as bytes."""
    cases = []
    shapes = [(2, 1, 1), (3, 2, 5), (11, 16, 16), (5, 24, 8), (150, 6, 6)]
    for seed, (classes, h, w) in enumerate(shapes, start=3001):
        for divisor in (32, 1024):  # the second makes neighbours nearly equal
            logits = numbers(classes * h * w, seed, 128, divisor).reshape(classes, h, w)
            if seed == 3003:
                logits[4] = logits[2]
                logits[9] = np.nan
            result = class_map(logits, SegmentationRule()).astype(np.uint8)
            facts: dict[str, Any] = {"classes": classes, "height": h, "width": w, "seed": seed}
            facts |= {"divisor": divisor, "copied": seed == 3003}
            facts["sha256"] = hashlib.sha256(result.tobytes()).hexdigest()
            if result.size <= 200:
                facts["map"] = result.reshape(-1).tolist()
            cases.append(facts)
    return cases


def detection_cases() -> list[dict[str, Any]]:
    """Outputs of a detector by seed, and the boxes found in them."""
    default = DetectionRule()
    cases = [
        ("few", (64, 64), (64, 64), 3, 245, default),
        ("many, in a rectangle", (64, 96), (50, 96), 2, 200, default),
        ("one class, little overlap", (96, 64), (96, 33), 1, 180, {"iou_threshold": 0.1}),
        ("all overlaps", (64, 64), (64, 64), 2, 220, {"iou_threshold": 1.0, "max_detections": 300}),
        ("few candidates", (64, 64), (64, 64), 4, 190, {"level_candidates": 20}),
        ("none", (64, 64), (64, 64), 3, 255, {"score_threshold": 0.9}),
        ("two levels", (64, 64), (64, 64), 3, 230, {"strides": [16, 32], "ratios": [1.0]}),
    ]
    found = []
    for seed, (name, size, content, classes, middle, changes) in enumerate(cases, start=4001):
        rule = changes if isinstance(changes, DetectionRule) else DetectionRule(**changes)  # type: ignore[arg-type]
        count = len(anchors(rule, size))
        logits = numbers(count * classes, seed, middle, 8).reshape(count, classes)
        deltas = numbers(count * 4, seed + 50, 128, 64).reshape(count, 4)
        result = detect(logits, deltas, rule, size, content)
        found.append(
            {
                "name": name,
                "input": [size[1], size[0]],
                "content": [content[1], content[0]],
                "classes": classes,
                "seed": seed,
                "middle": middle,
                "rule": rule.model_dump(mode="json"),
                **listed(result),
            }
        )
    return found


def listed(found: Detections) -> dict[str, Any]:
    """Return detections as lists of numbers."""
    return {
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "labels": found.classes.tolist(),
    }
