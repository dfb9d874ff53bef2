"""Logits of a package, and of the models that it is compared with, on the same images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..data.overlap import refuse_seen
from ..data.preprocess import preprocess_batch
from ..data.sample import SAMPLE_SEED, Taken
from ..model.logits import reference_logits
from ..model.reference import SepViT
from ..package.manifest import Selection
from ..package.session import PackageSession
from ..quantization.interface import ProgramQuantization

_BATCH = 16


@dataclass(frozen=True)
class Outputs:
    """Logits for N images; each array is (N, num_classes).

    Attributes
    ----------
    data : str
        Name of the images.
    data_sha256 : str
        Digest of the pixels that the models took.
    selection : Selection
        Which images of the data they are.
    labels : list
        Index of each image's class; None where it is not known.
    logits : numpy.ndarray
        The package's.
    reference : numpy.ndarray or None
        The fp32 reference's, if it was given.
    quantized : numpy.ndarray or None
        Those of an int8 package's integers in torch, if they were given.
    on_cpu : numpy.ndarray or None
        An NPU package's on the CPU, if a reference was given and a CPU runtime opens it.
    """

    data: str
    data_sha256: str
    selection: Selection
    labels: list[int | None]
    logits: np.ndarray
    reference: np.ndarray | None
    quantized: np.ndarray | None
    on_cpu: np.ndarray | None


def run_images(
    session: PackageSession,
    data: Taken,
    model: SepViT | None = None,
    quantization: ProgramQuantization | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Outputs:
    """Run a package on images, beside its reference if that is known.

    Parameters
    ----------
    session : PackageSession
        The package.
    data : Taken
        Images that were neither trained nor calibrated on.
    model : SepViT, optional
        The reference with the same weights.
    quantization : ProgramQuantization, optional
        With `model`: integers and scales of an int8 package.
    advance : callable
        Called with the number of images done, for a progress bar.

    Raises
    ------
    CheckFailed
        If the package's model was trained on some of the images.
    """
    manifest = session.package.manifest
    refuse_seen(data, manifest.source.trained_on)
    rounds_to = None
    if model is not None and quantization is not None:
        rounds_to = quantization.reference(model)
    measured, references, quantized, on_cpu = [], [], [], []
    labels: list[int | None] = []
    digest = hashlib.sha256()
    for start in range(0, len(data), _BATCH):
        samples = [data[i] for i in range(start, min(start + _BATCH, len(data)))]
        images = [sample.image for sample in samples]
        pixels = preprocess_batch(images, session.package.preprocessing, manifest.model.image_size)
        digest.update(pixels.data)
        labels += [sample.label for sample in samples]
        measured.append(session.run_pixels(pixels)[0])
        if model is not None:
            references.append(reference_logits(model, pixels))
            if (outputs := session.run_on_cpu(pixels)) is not None:
                on_cpu.append(outputs[0])
        if rounds_to is not None:
            quantized.append(rounds_to(pixels))
        advance(len(samples))
    return Outputs(
        data=data.name,
        data_sha256=digest.hexdigest(),
        selection=selection_of(data),
        labels=labels,
        logits=np.concatenate(measured),
        reference=_joined(references),
        quantized=_joined(quantized),
        on_cpu=_joined(on_cpu),
    )


def selection_of(taken: Taken) -> Selection:
    """Describe a sample for results and manifests."""
    whole = len(taken) == taken.available
    over = "classes" if taken.labelled else "the set"
    return Selection(
        available=taken.available,
        rule="all" if whole else f"evenly over {over}",
        seed=None if whole else SAMPLE_SEED,
        class_rule=taken.class_rule,
        left_out=taken.left_out,
    )


def _joined(pieces: list[np.ndarray]) -> np.ndarray | None:
    return np.concatenate(pieces) if pieces else None
