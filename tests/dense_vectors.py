"""Vectors of dense models: the input that holds an image whole, class maps, boxes, self-checks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from noise import noise
from safetensors.numpy import load_file

from sepvit_edge.data.preprocess import fit_image
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.package.manifest import GOLDEN
from sepvit_edge.package.postprocessing import DetectionRule, SegmentationRule
from sepvit_edge.pipeline.dense import kept
from sepvit_edge.postprocess.detection import Detections, anchors, detect
from sepvit_edge.postprocess.exponential import exp
from sepvit_edge.postprocess.segmentation import class_map
from sepvit_edge.scoring.detection import shared_boxes

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


def kept_cases() -> list[dict[str, Any]]:
    """Every k-th number of an output that golden vectors keep."""
    counts = (1, 384, 65536, 65537, 131072, 200_000, 614_400)
    pieces = [kept(np.arange(count)[None])[0] for count in counts]
    return [
        {"numbers": count, "step": int(piece[1]) if len(piece) > 1 else 1, "kept": len(piece)}
        for count, piece in zip(counts, pieces, strict=True)
    ]


def dense_self_check_cases(folder: Path) -> list[dict[str, Any]]:
    """Golden vectors of the dense packages that were tampered with, and what must be said."""
    cases = []

    def case(package: str, name: str, fails_at: str | None, edit: Any = None, **facts: Any) -> None:
        facts = {"passed": fails_at is None, "fails_at": fails_at} | facts
        cases.append({"name": f"{package}: {name}", "package": package, "edit": edit} | facts)

    for package, output in (("segmentation", "logits"), ("detection", "deltas")):
        golden = load_file(folder / package / GOLDEN)
        case(package, "untouched", None, agreement=1.0)
        flat = golden["pixels"].reshape(-1)
        at = golden["pixels"][0].size + 700  # in image 1
        edit = {"tensor": "pixels", "offset": at, "values": [int(flat[at]) ^ 3]}
        apart = abs(int(flat[at]) - edit["values"][0])  # type: ignore[index]
        changed = {"image": 1, "different_values": 1, "max_difference": apart}
        case(package, "pixels differ", "pixels", edit, **changed)
        values = golden[f"package.{output}"]
        for change, fails_at in ((2.0**-17, None), (4.0, "outputs")):
            other = values.copy()
            other[1, 5] += np.float32(change)
            edit = {
                "tensor": f"package.{output}",
                "offset": values.shape[1] + 5,
                "values": [float(other[1, 5])],
            }
            facts = {"output": output, "image": 1} if fails_at else {}
            ratio = float(f"{sqnr_db(other, values):.12g}")
            name = "an output differs" + ("" if fails_at else " by rounding")
            case(package, name, fails_at, edit, sqnr_db=ratio, max_difference=change, **facts)
        edit = {"tensor": f"reference.{output}", "offset": 0, "values": [99.0]}
        case(package, "the reference differs", None, edit)
    golden = load_file(folder / "segmentation" / GOLDEN)
    pixels = golden["package.class_map"].reshape(-1)
    for count, fails_at in ((100, None), (300, "answer")):
        edit = {
            "tensor": "package.class_map",
            "offset": 0,
            "values": [(int(x) + 1) % 4 for x in pixels[:count]],
        }
        share = float(f"{1 - count / len(pixels):.12g}")
        case("segmentation", f"{count} pixels differ", fails_at, edit, agreement=share)
    golden = load_file(folder / "detection" / GOLDEN)
    for image, name, fails_at in ((0, "boxes", None), (1, "classes", "answer")):
        # A box elsewhere, or all boxes of an image with another class.
        tensor = f"package.{name}.{image}"
        values = [0, 0, 1, 1] if name == "boxes" else [(x + 1) % 3 for x in golden[tensor]]
        edit = {"tensor": tensor, "offset": 0, "values": [float(x) for x in values]}
        case("detection", f"{name} differ", fails_at, edit, agreement=_agreement(golden, edit))
    return cases


def _agreement(golden: dict[str, np.ndarray], edit: dict[str, Any]) -> float:
    """Return the share of boxes that the golden ones have in common with the edited ones."""

    def boxes(tensors: dict[str, np.ndarray], image: int) -> Detections:
        parts = [tensors[f"package.{name}.{image}"] for name in ("boxes", "scores", "classes")]
        return Detections(*parts)

    other = {name: tensor.copy() for name, tensor in golden.items()}
    other[edit["tensor"]].reshape(-1)[: len(edit["values"])] = edit["values"]
    pairs = [(boxes(other, i), boxes(golden, i)) for i in range(len(golden["pixels"]))]
    shared = sum(shared_boxes(*pair) for pair in pairs)
    return float(f"{2 * shared / sum(len(a) + len(b) for a, b in pairs):.12g}")
