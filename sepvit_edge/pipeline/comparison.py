"""One table over checkpoints, runtimes and precisions, all measured on the same images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from ..backends.registry import MissingRuntime, get_backend, host_targets
from ..config.recipe import find_recipe, recipes_of
from ..data.overlap import refuse_seen
from ..data.preprocess import preprocess_batch
from ..data.sample import Dataset
from ..metrics import sqnr_db
from ..model.logits import reference_logits, torch_threads
from ..model.reference import SepViT
from ..package.session import open_package
from . import parity
from .export import export_package
from .lowering import quantization_for

_BATCH = 32


@dataclass(frozen=True)
class Row:
    """One package, or a checkpoint in torch.

    Attributes
    ----------
    checkpoint : str
        Its name.
    runtime : str
        A target, or ``"torch"``.
    precision : str
        ``"fp32"``, ``"fp16"`` or ``"int8"``; behind a target's name, where it has another scheme.
    megabytes : float or None
        Of the model files.
    top1 : float or None
        Accuracy, 0..1, where the images have labels.
    difference : float or None
        Of top-1 to the first row's.
    interval : tuple of float or None
        Its 95 % confidence interval (paired).
    mcnemar_p : float or None
        Exact McNemar test of no difference.
    agreement : float
        Share of images on which it names the same class as the first row.
    sqnr_db : float or None
        Of the logits, to the checkpoint's own fp32 reference.
    sqnr_quantized_db : float or None
        Of an int8 package, to the same in torch.
    """

    checkpoint: str
    runtime: str
    precision: str
    megabytes: float | None
    top1: float | None
    difference: float | None
    interval: tuple[float, float] | None
    mcnemar_p: float | None
    agreement: float
    sqnr_db: float | None
    sqnr_quantized_db: float | None


@dataclass(frozen=True)
class Comparison:
    """All rows, and how far the runtimes agree among each other.

    Attributes
    ----------
    data : str
        Name of the images.
    images : int
        How many.
    rows : list of Row
        The first is what the others are compared with.
    least_agreement : dict
        ``"checkpoint precision"`` -> smallest share of images on which two runtimes agree.
    missing : dict
        Target -> what to install.
    """

    data: str
    images: int
    rows: list[Row]
    least_agreement: dict[str, float]
    missing: dict[str, str]


def compare_everything(
    checkpoints: Sequence[tuple[str, SepViT]],
    data: Dataset,
    *,
    images: int | None = None,
    only: Sequence[str] = (),
    step: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Export each checkpoint for every runtime and precision, and run all on the same images.

    A float checkpoint is exported in every precision, int8 by calibration; a quantisation-aware one
    in int8.

    Parameters
    ----------
    checkpoints : sequence of (str, SepViT)
        Names and models; all with the same classes and input.
    data : Dataset
        Images that no checkpoint has seen.
    images : int, optional
        At most so many.
    only : sequence of str
        Targets; all that a PC runs unless given.
    step : callable
        Told what is being done.

    Raises
    ------
    CheckFailed
        If a checkpoint was trained on some of the images.
    """
    count = min(len(data), images or len(data))
    config = checkpoints[0][1].config
    for _, model in checkpoints:
        refuse_seen(data, model.source.trained_on if model.source else None)
    step(f"reading {count} images of {data.name}")
    samples = [data[i] for i in range(count)]
    images_of = [sample.image for sample in samples]
    pixels = preprocess_batch(images_of, config.preprocessing, config.image_size)
    labels = [s.label for s in samples]
    truth = None if None in labels else np.array(labels)
    rows: list[Row] = []
    first: np.ndarray | None = None
    least: dict[str, float] = {}
    missing: dict[str, str] = {}

    def add(
        name: str,
        runtime: str,
        precision: str,
        logits: np.ndarray,
        megabytes: float | None = None,
        reference: np.ndarray | None = None,
        quantized: np.ndarray | None = None,
    ) -> np.ndarray:
        nonlocal first
        named: np.ndarray = logits.argmax(1)
        first = named if first is None else first
        difference, interval, p = None, None, None
        if truth is not None and rows:
            difference, interval, p = parity.paired_difference(first == truth, named == truth)
        rows.append(
            Row(
                name,
                runtime,
                precision,
                megabytes,
                None if truth is None else float((named == truth).mean()),
                difference,
                interval,
                p,
                float((named == first).mean()),
                _sqnr(reference, logits),
                _sqnr(quantized, logits),
            )
        )
        return named

    for name, model in checkpoints:
        own = model.quantization is not None
        step(f"{name}: torch")
        with torch_threads(1):
            reference = reference_logits(model, pixels)
        add(name, "torch", "fp32", reference)
        quantized = None
        named: dict[str, dict[str, np.ndarray]] = {}
        for target in only or host_targets():
            int8 = recipes_of(target).get("int8")
            if int8 is not None and int8.quantization.scheme == "full":
                # What runs such a package takes seconds an image; it rounds as torch does.
                step(f"{name}: torch, every operation in integers as for {target}")
                full = quantization_for(model, int8)
                with torch_threads(1):
                    integers = full.reference(model)(pixels)
                add(name, "torch", f"{target} int8", integers, reference=reference)
                continue
            try:
                get_backend(target)
            except MissingRuntime as error:
                missing[target] = str(error)
                continue
            for precision in ("int8",) if own else recipes_of(target):
                step(f"{name}: {target} {precision}")
                recipe = find_recipe(target, precision)
                if precision == "int8" and quantized is None:
                    quantization = quantization_for(model, recipe)
                    with torch_threads(1):
                        quantized = quantization.reference(model)(pixels)
                    add(name, "torch", "int8", quantized, reference=reference)
                with tempfile.TemporaryDirectory() as scratch:
                    folder = Path(scratch) / "package"
                    package = export_package(
                        model, recipe=recipe, output=folder, data=data, images=_BATCH
                    )
                    size = package.size / 1e6
                    session = open_package(folder, 1)
                    pieces = np.split(pixels, range(_BATCH, count, _BATCH))
                    logits = np.concatenate([session.run_pixels(piece)[0] for piece in pieces])
                    del session
                same = quantized if precision == "int8" else None
                answers = add(name, target, precision, logits, size, reference, same)
                named.setdefault(precision, {})[target] = answers
        for precision, answers_of in named.items():
            pairs = [float((a == b).mean()) for a, b in combinations(answers_of.values(), 2)]
            if pairs:
                least[f"{name} {precision}"] = min(pairs)
    return Comparison(data.name, count, rows, least, missing)


def _sqnr(signal: np.ndarray | None, measured: np.ndarray) -> float | None:
    return None if signal is None else round(sqnr_db(signal, measured), 1)
