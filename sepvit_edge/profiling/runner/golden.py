"""The golden vectors: the device must compute the logits and the pixels that are in the package."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from .latency import distribution, timed
from .runtimes.interface import Call
from .tensors import batches

# SQNR that the logits must reach against those in the package: between what correct devices reach
# and what incorrect ones leave. The apps require the same (tests/vectors/minimum_sqnr.json).
# fp32: sums in another order leave 129 dB and more, 108 on images unlike those of the training; a
# runtime that computes in float16 without saying so leaves 60 at most.
# fp16: 45 to 60, since some hundred operations of 11 bits follow each other; pixels that are one
# level off leave 38.
# int8: an activation that is rounded the other way moves others behind it, until 24 to 38 are left,
# about the error of quantisation itself; a missing layer leaves 19, BGR for RGB 14.
MINIMUM_SQNR_DB = {"fp32": 80.0, "fp16": 40.0, "int8": 20.0}
# bfloat16 has 8 bits, and a CPU without it computes in float32 instead: both are correct.
BFLOAT16_SQNR_DB = 30.0
PREPROCESSING_RUNS, PREPROCESSING_WARMUP_RUNS = 50, 3


def minimum_sqnr(manifest: dict) -> float:
    """Return the SQNR in dB that the golden logits must reach in the package's arithmetic."""
    if manifest["runtime"]["options"].get("inference_precision", "f32") != "f32":
        return BFLOAT16_SQNR_DB
    return MINIMUM_SQNR_DB[manifest["precision"]]


def check_golden(manifest: dict, golden: dict, call: Call) -> dict:
    """Run a program on the golden pixels and compare its outputs with those in the package.

    Of several outputs the worst one counts.

    Parameters
    ----------
    manifest : dict
        The package's manifest.
    golden : dict
        Tensors of golden.safetensors.
    call : callable
        Takes ``[input]`` and returns the outputs, as ``[logits (B, classes)]``.

    Returns
    -------
    dict
        Section ``golden`` of the document.
    """
    pixels = golden["pixels"]
    pieces = [call([array]) for array, _ in batches(pixels, manifest["input"])]
    sections = []
    # An image classifier of Core ML has a label and probabilities behind its logits.
    for stated, parts in zip(manifest["outputs"], zip(*pieces)):
        output = np.concatenate(parts)[: len(pixels)]
        found, wanted = _paired(output, stated["name"], golden)
        sections.append(_compared(found, wanted, minimum_sqnr(manifest)))
    unlike = [section for section in sections if section["sqnr_db"] is not None]
    return min(unlike, key=lambda section: section["sqnr_db"]) if unlike else sections[0]


def _paired(output: np.ndarray, name: str, golden: dict) -> tuple:
    """Return an output (B, numbers) and the package's, both float64.

    A package that could not be run where it was exported has the reference's outputs only. A large
    output is stored as every k-th of its numbers, k the least odd one that leaves 65,536 (see
    docs/package-format.md).
    """
    if "reference_logits" in golden:
        wanted = golden.get("package_logits", golden["reference_logits"])
        return output.astype(np.float64), wanted.astype(np.float64)
    wanted = golden.get(f"package.{name}", golden[f"reference.{name}"])
    flat = output.reshape(len(output), -1)
    step = -(-flat.shape[1] // 65536) | 1
    return flat[:, ::step].astype(np.float64), wanted.astype(np.float64)


def _compared(logits: np.ndarray, wanted: np.ndarray, minimum: float) -> dict:
    """Compare an output with the package's."""
    noise, signal = float(((logits - wanted) ** 2).sum()), float((wanted**2).sum())
    finite = bool(np.isfinite(logits).all())
    identical = finite and noise == 0
    # A number that JSON has: logits that are not finite are as far away as can be.
    ratio = 10 * math.log10(signal / noise) if finite and noise > 0 and signal > 0 else -999.0
    return {
        "images": len(logits),
        "sqnr_db": None if identical else ratio,
        "minimum_sqnr_db": minimum,
        "max_abs_error": float(np.abs(logits - wanted).max()) if finite else sys.float_info.max,
        "top1_agreement": float((logits.argmax(1) == wanted.argmax(1)).mean()),
        "preprocessing_identical": None,
        "passed": identical or ratio >= minimum,
    }


def _resized(image: Any, size: tuple) -> Any:
    """Rows, then columns: Pillow 13 may change the order when it is given both."""
    from PIL import Image

    for step in ((size[0], image.size[1]), size):
        if step != image.size:
            image = image.resize(step, Image.Resampling.BILINEAR)
    return image


def _fitted(image: Any, facts: dict) -> np.ndarray:
    """Return the whole image, as large as the input takes it, in its top left corner."""
    shape = facts["shape"]
    rows, columns = shape[1:3] if facts["layout"] == "NHWC" else shape[2:4]
    width, height = image.size
    if width * rows >= height * columns:
        content = (columns, max(1, height * columns // width))
    else:
        content = (max(1, width * rows // height), rows)
    pixels = np.empty((rows, columns, 3), np.uint8)
    pixels[:] = [int(255 * value + 0.5) for value in facts["mean"]]
    pixels[: content[1], : content[0]] = np.asarray(_resized(image, content))
    return pixels


def golden_sentence(golden: dict) -> str:
    """Say what differs on a device that did not pass."""
    if golden["preprocessing_identical"] is False:
        return "Pillow on this device resizes to other pixels than the golden ones; not timed"
    return (
        f"the golden vectors give other logits here: SQNR is {golden['sqnr_db']:.1f} dB, at least "
        f"{golden['minimum_sqnr_db']:.0f} dB expected; not timed"
    )


def time_preprocessing(golden: dict, manifest: dict) -> tuple:
    """Resize the golden images by the package's rule with Pillow.

    Returns
    -------
    identical : bool
        Whether every golden image gave the golden pixels.
    times : dict
        Distribution of the times for ``image.2``.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    """
    from PIL import Image

    facts = manifest["input"]
    size, shorter = facts["crop_size"], facts["resize_shorter_side"]

    def prepare(image: Any) -> np.ndarray:
        if facts.get("fit"):
            return _fitted(image, facts)
        width, height = image.size
        scaled = (
            (shorter, height * shorter // width)
            if width <= height
            else (width * shorter // height, shorter)
        )
        image = _resized(image, scaled)
        left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        return np.array(image.crop((left, top, left + size, top + size)))

    images = [Image.fromarray(golden[f"image.{i}"]) for i in range(len(golden["pixels"]))]
    made = [prepare(image.convert("RGB")) for image in images]
    identical = all(np.array_equal(a, b) for a, b in zip(made, golden["pixels"]))
    photograph = images[min(2, len(images) - 1)].convert("RGB")
    runs = range(PREPROCESSING_WARMUP_RUNS + PREPROCESSING_RUNS)
    times = [timed(prepare, photograph) for _ in runs]
    return identical, distribution(times[PREPROCESSING_WARMUP_RUNS:])
