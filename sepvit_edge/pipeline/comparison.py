"""One table over checkpoints, runtimes and precisions, all measured on the same images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.registry import MissingRuntime, get_backend, host_targets
from ..config.recipe import Recipe, find_recipe, recipes_of
from ..data.overlap import refuse_seen
from ..data.preprocess import preprocess_batch
from ..data.sample import Dataset, take_evenly
from ..errors import SepViTError
from ..metrics import paired_difference, sqnr_db
from ..model.logits import reference_logits, torch_threads
from ..model.reference import SepViT
from ..model.variants import ModelConfig
from ..package.session import open_package
from .export import export_package
from .lowering import quantization_for
from .outputs import selection_of

_BATCH = 32


@dataclass(frozen=True)
class Row:
    """One package, or a checkpoint in torch.

    Attributes
    ----------
    checkpoint : str
        Name of the checkpoint.
    runtime : str
        A target, or ``"torch"``.
    precision : str
        ``"fp32"``, ``"fp16"`` or ``"int8"``, after a target's name if its int8 scheme differs.
    megabytes : float or None
        Size of the model files.
    top1 : float or None
        Accuracy, 0..1; None for images without labels.
    difference : float or None
        Difference of top-1 to the first row's.
    interval : tuple of float or None
        95 % confidence interval of the difference (paired).
    mcnemar_p : float or None
        Exact McNemar test of no difference.
    agreement : float
        Share of images with the same class as in the first row.
    sqnr_db : float or None
        SQNR of the logits against the checkpoint's fp32 reference.
    sqnr_quantized_db : float or None
        SQNR of an int8 package's logits against the same integers in torch.
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
    """All rows, and the agreement of the runtimes with each other.

    Attributes
    ----------
    data : str
        Name of the images.
    images : int
        Number of images.
    selection : dict
        Which images of the data they are (`sepvit_edge.package.manifest.Selection`).
    rows : list of Row
        The others are compared with the first.
    least_agreement : dict
        ``"checkpoint precision"`` -> smallest share of images on which two runtimes agree.
    missing : dict
        Target -> sentence that says what to install.
    """

    data: str
    images: int
    selection: dict[str, Any]
    rows: list[Row]
    least_agreement: dict[str, float]
    missing: dict[str, str]


def compare_everything(
    checkpoints: Sequence[tuple[str, SepViT]],
    data: Dataset,
    *,
    images: int | None = None,
    only: Sequence[str] = (),
    calibration: Dataset | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Export each checkpoint for every runtime and precision, and run all on the same images.

    A float checkpoint is exported in every precision, int8 by calibration; a quantisation-aware one
    in int8.

    Parameters
    ----------
    checkpoints : sequence of (str, SepViT)
        Names and models, all with the same classes and input.
    data : Dataset
        Held-out images for every checkpoint.
    images : int, optional
        Maximum number of images, taken evenly over the classes.
    only : sequence of str
        Targets. Default: all that this machine runs.
    calibration : Dataset, optional
        Images to calibrate int8 on. Default: built-in ones.
    step : callable
        Called with the name of each step, for a progress display.

    Raises
    ------
    SepViTError
        If the checkpoints differ in classes, image size or preprocessing; the first difference is
        named.
    CheckFailed
        If a checkpoint was trained on some of the images.
    """
    _refuse_different(checkpoints)
    data = take_evenly(data, images)
    count = len(data)
    config = checkpoints[0][1].config
    for _, model in checkpoints:
        refuse_seen(data, model.source.trained_on if model.source else None)
    step(f"reading {count} images of {data.name}")
    samples = [data[i] for i in range(count)]
    pixels = preprocess_batch([s.image for s in samples], config.preprocessing, config.image_size)
    labels = [sample.label for sample in samples]
    table = _Table(None if None in labels else np.array(labels))
    missing: dict[str, str] = {}
    targets = only or host_targets()
    for name, model in checkpoints:
        missing |= _add_checkpoint(table, name, model, data, pixels, targets, calibration, step)
    selection = selection_of(data).model_dump(mode="json")
    return Comparison(data.name, count, selection, table.rows, table.least_agreement(), missing)


def _refuse_different(checkpoints: Sequence[tuple[str, SepViT]]) -> None:
    """Reject checkpoints that the same pixels and labels do not fit."""
    (name, first), *others = checkpoints
    ours = _input_facts(first.config)
    for other, model in others:
        theirs = _input_facts(model.config)
        for what, value in ours.items():
            if theirs[what] != value:
                raise SepViTError(
                    "the checkpoints must have the same classes, image size and preprocessing; "
                    f"{what}: {value} of {name}, {theirs[what]} of {other}"
                )


def _input_facts(config: ModelConfig) -> dict[str, object]:
    """Return what the images and labels of a comparison depend on, the plainest fact first."""
    classes = {f"class {i}": repr(label) for i, label in enumerate(config.labels)}
    rule = asdict(config.preprocessing)
    return {"classes": config.num_classes, "image size": config.image_size, **rule, **classes}


@dataclass
class _Table:
    """The rows so far, and the classes that they are computed from.

    Attributes
    ----------
    truth : numpy.ndarray or None
        Labels of the images, (N,).
    rows : list of Row
        One for each result.
    first : numpy.ndarray or None
        Classes in the first row, (N,).
    packages : dict
        ``"checkpoint precision"`` -> classes of each package.
    """

    truth: np.ndarray | None
    rows: list[Row] = field(default_factory=list)
    first: np.ndarray | None = None
    packages: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(
        self,
        checkpoint: str,
        runtime: str,
        precision: str,
        logits: np.ndarray,
        megabytes: float | None = None,
        reference: np.ndarray | None = None,
        quantized: np.ndarray | None = None,
    ) -> None:
        """Add the row of one array of logits (N, num_classes)."""
        classes: np.ndarray = logits.argmax(1)
        difference, interval, p, top1 = None, None, None, None
        if self.first is None:
            self.first = classes
        elif self.truth is not None:
            right = self.first == self.truth, classes == self.truth
            difference, interval, p = paired_difference(*right)
        if self.truth is not None:
            top1 = float((classes == self.truth).mean())
        if megabytes is not None:
            self.packages.setdefault(f"{checkpoint} {precision}", []).append(classes)
        self.rows.append(
            Row(
                checkpoint=checkpoint,
                runtime=runtime,
                precision=precision,
                megabytes=megabytes,
                top1=top1,
                difference=difference,
                interval=interval,
                mcnemar_p=p,
                agreement=float((classes == self.first).mean()),
                sqnr_db=_sqnr(reference, logits),
                sqnr_quantized_db=_sqnr(quantized, logits),
            )
        )

    def least_agreement(self) -> dict[str, float]:
        """Return the smallest agreement between any two packages of one precision."""
        return {
            title: min(float((a == b).mean()) for a, b in combinations(packages, 2))
            for title, packages in self.packages.items()
            if len(packages) > 1
        }


def _add_checkpoint(
    table: _Table,
    name: str,
    model: SepViT,
    data: Dataset,
    pixels: np.ndarray,
    targets: Sequence[str],
    calibration: Dataset | None,
    step: Callable[[str], None],
) -> dict[str, str]:
    """Add the rows of one checkpoint; return what the targets without a runtime need."""
    step(f"{name}: torch")
    with torch_threads(1):
        reference = reference_logits(model, pixels)
    table.add(name, "torch", "fp32", reference)
    quantized = None
    missing: dict[str, str] = {}
    for target in targets:
        int8 = recipes_of(target).get("int8")
        if int8 is not None and int8.quantization.scheme == "full":
            # An emulator takes seconds for an image; torch rounds in the same way.
            step(f"{name}: torch, every operation in integers as for {target}")
            integers = _run_in_torch(model, int8, pixels, calibration)
            table.add(name, "torch", f"{target} int8", integers, reference=reference)
            continue
        try:
            get_backend(target)
        except MissingRuntime as error:
            missing[target] = str(error)
            continue
        for precision in recipes_of(target) if model.quantization is None else ("int8",):
            step(f"{name}: {target} {precision}")
            recipe = find_recipe(target, precision)
            if precision == "int8" and quantized is None:
                quantized = _run_in_torch(model, recipe, pixels, calibration)
                table.add(name, "torch", "int8", quantized, reference=reference)
            is_int8 = precision == "int8"
            images = calibration if is_int8 and model.quantization is None else None
            logits, megabytes = _run_package(model, recipe, data, pixels, images)
            same = quantized if is_int8 else None
            table.add(name, target, precision, logits, megabytes, reference, same)
    return missing


def _run_in_torch(
    model: SepViT, recipe: Recipe, pixels: np.ndarray, calibration: Dataset | None
) -> np.ndarray:
    """Return the logits of the quantised reference."""
    quantization = quantization_for(model, recipe, calibration)
    with torch_threads(1):
        return quantization.reference(model)(pixels)


def _run_package(
    model: SepViT,
    recipe: Recipe,
    data: Dataset,
    pixels: np.ndarray,
    calibration: Dataset | None,
) -> tuple[np.ndarray, float]:
    """Export a package and run it; return its logits and the size of its model files in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "package"
        package = export_package(
            model,
            recipe=recipe,
            output=folder,
            data=data,
            images=_BATCH,
            calibration=calibration,
        )
        session = open_package(folder, 1)
        pieces = np.split(pixels, range(_BATCH, len(pixels), _BATCH))
        logits = np.concatenate([session.run_pixels(piece)[0] for piece in pieces])
        del session  # before its files
        return logits, package.size / 1e6


def _sqnr(signal: np.ndarray | None, measured: np.ndarray) -> float | None:
    return None if signal is None else round(sqnr_db(signal, measured), 1)
