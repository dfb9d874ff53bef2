"""Distance between a package and the fp32 reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from ..data.overlap import refuse_seen
from ..data.preprocess import preprocess_batch
from ..data.sample import Dataset
from ..errors import CheckFailed
from ..metrics import mcnemar_p, sqnr_db
from ..model.logits import normalize, reference_logits
from ..model.reference import SepViT, SepViTBlock
from ..package.manifest import Parity
from ..package.session import PackageSession
from ..quantization.interface import ProgramQuantization

_BATCH = 16


def measure(
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
        Take the first so many images only.
    advance : callable
        Told the number of images done, for a progress bar.
    quantization : ProgramQuantization, optional
        An int8 package's quantisation, to compare with its float64 reference too.

    Returns
    -------
    Parity
        Figures rounded to four significant digits.

    Raises
    ------
    CheckFailed
        If the model was trained on some of the images.
    """
    refuse_seen(data, session.package.manifest.source.trained_on)
    count = min(len(data), limit or len(data))
    config = model.config
    references, measured, quantized, on_cpu, labels = [], [], [], [], []
    rounds_to = None if quantization is None else quantization.reference(model)
    digest = hashlib.sha256()
    for start in range(0, count, _BATCH):
        samples = [data[i] for i in range(start, min(start + _BATCH, count))]
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
    figures = compare(np.concatenate(references), logits, labels, data.name, digest.hexdigest())
    further = {}
    for name, others in (("sqnr_quantized_db", quantized), ("sqnr_cpu_db", on_cpu)):
        if others:
            further[name] = round(sqnr_db(np.concatenate(others), logits), 1)
    return figures.model_copy(update=further)


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
    n = len(first)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    difference = (gained - lost) / n
    spread = 1.96 * math.sqrt(max(gained + lost - (gained - lost) ** 2 / n, 0)) / n
    return difference, (difference - spread, difference + spread), mcnemar_p(gained, lost)


@dataclass(frozen=True)
class TapDistance:
    """Distance between a tapped twin and the reference at one point of the network.

    Attributes
    ----------
    name : str
        Stage, block and part whose output this is, ``"stages.2.blocks.4.psa"``; or ``"logits"``.
    max_abs_error, sqnr_db : float
        Over all images.
    leaves : bool
        Whether this is farther than the precision explains.
    """

    name: str
    max_abs_error: float
    sqnr_db: float
    leaves: bool


# What rounding alone explains, with room: fp32 measures 110 dB and more at every tap, weights in
# fp16 56 dB, with bfloat16 arithmetic 40 dB. A wrong scale in one block leaves 20 dB or less.
LEAVES_BELOW_DB = {"fp32": 80.0, "fp16": 35.0, "int8": 15.0}


def check(measured: Parity, precision: str) -> None:
    """Refuse a package that computes something else than its precision explains.

    Tool chains compile wrongly at times, and say nothing.

    Parameters
    ----------
    measured : Parity
        Of an int8 package to the same in torch, where that was compared.
    precision : str
        Of the package.

    Raises
    ------
    CheckFailed
        If the logits are farther from the reference than rounding leads.
    """
    noise, of = measured.sqnr_quantized_db, "torch's int8"
    if noise is None:
        noise, of = measured.sqnr_db, "the reference"
    if not noise >= LEAVES_BELOW_DB[precision]:  # also where the logits are no numbers
        raise CheckFailed(
            f"the package computes something else than {of}: its logits are {noise} dB from it, "
            f"and what {precision} rounds leaves {LEAVES_BELOW_DB[precision]:g} dB at least; try "
            "another precision, or another version of the tool chain"
        )


def by_block(
    outputs: dict[str, np.ndarray], model: SepViT, pixels: np.ndarray, precision: str
) -> list[TapDistance]:
    """Compare a tapped twin with the reference, part by part in the order of the network.

    Parameters
    ----------
    outputs : dict
        The twin's outputs by name (`sepvit_edge.pipeline.twins.run_twin`).
    model : SepViT
        The reference.
    pixels : numpy.ndarray
        uint8 (B, image_size, image_size, 3) that the twin ran on.
    precision : str
        Of the package; decides how far rounding may lead.

    Returns
    -------
    list of TapDistance
        The first that leaves is the part to look at; later ones inherit its error.
    """
    references = reference_taps(model, pixels)
    distances = []
    for name, reference in references.items():
        measured = outputs[name].reshape(reference.shape)
        noise = sqnr_db(reference, measured)
        error = float(np.abs(reference - measured).max())
        leaves = noise < LEAVES_BELOW_DB[precision]
        distances.append(TapDistance(name, rounded(error), round(noise, 1), leaves))
    return distances


def reference_taps(model: SepViT, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Run the reference and keep the output of every part, under the edge form's names.

    Returns
    -------
    dict
        Arrays (rows, C) in the order that the network computes them, then ``logits``.
    """
    taps: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, arguments: object, output: torch.Tensor | None = None) -> None:
            value = arguments[0] if output is None else output  # type: ignore[index]
            taps[name] = value.reshape(-1, value.shape[-1]).float().cpu().numpy().copy()

        return hook

    with ExitStack() as stack, torch.no_grad():
        for i in range(4):
            embed, cpe = model.patch_embeds[i], model.pos_block[i]
            hooks = [embed.register_forward_hook(keep(f"stages.{i}.patch_embedding"))]
            for j, block in enumerate(cast(list[SepViTBlock], model.blocks[i])):
                name = f"stages.{i}.blocks.{j}"
                # DSA and PSA are methods, not modules: wrap them on this instance.
                stack.enter_context(_tapped(block.attn, "depthwise", keep(f"{name}.dsa")))
                stack.enter_context(_tapped(block.attn, "pointwise", keep(f"{name}.psa")))
                # norm2 takes what the first residual gives.
                hooks.append(block.norm2.register_forward_pre_hook(keep(f"{name}.proj")))
                hooks.append(block.register_forward_hook(keep(f"{name}.mlp")))
            hooks.append(cpe.register_forward_hook(keep(f"stages.{i}.cpe")))
            for hook in hooks:
                stack.callback(hook.remove)
        x = normalize(model, torch.from_numpy(pixels))
        logits = model(x.to(model.head.weight.device))
    return taps | {"logits": logits.float().cpu().numpy()}


@contextmanager
def _tapped(owner: object, method: str, keep: Callable[..., None]) -> Iterator[None]:
    original = getattr(owner, method)

    def wrapped(x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = original(x)
        keep(owner, x, output)
        return output

    # Past nn.Module's own __setattr__, and gone again when the block ends.
    vars(owner)[method] = wrapped
    try:
        yield
    finally:
        del vars(owner)[method]


def rounded(value: float) -> float:
    """Four significant digits: what is beyond them depends on the machine, not on the package."""
    return float(f"{value:.4g}")
