"""Measure what each block costs when it alone is quantised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..charts import load_pyplot
from ..metrics import sqnr_db
from ..model.graph import part_of
from ..model.logits import reference_logits
from ..model.quantized import Quantization
from ..model.reference import SepViT
from .scheme import LayerQuantization


@dataclass(frozen=True)
class Sensitivity:
    """Cost of quantising one part alone.

    Attributes
    ----------
    part : str
        ``"stages.2.blocks.4.psa"``; or ``"everything"``.
    layers : int
        Linears and convolutions in it.
    sqnr_db : float
        SQNR of the logits against the float model.
    """

    part: str
    layers: int
    sqnr_db: float


def scan(
    model: SepViT,
    quantization: Quantization,
    pixels: np.ndarray,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Sensitivity]:
    """Quantise each part alone, and all together.

    Parameters
    ----------
    model : SepViT
        The float model.
    quantization : Quantization
        Calibrated or trained.
    pixels : numpy.ndarray
        uint8 (N, image_size, image_size, 3), none of the calibration images.
    advance : callable
        Called with 1 when a part is done.

    Returns
    -------
    list of Sensitivity
        In the order of the network; everything last.
    """
    parts: dict[str, list[str]] = {}
    for name in quantization.layers:
        parts.setdefault(part_of(name.replace(".", "_")) or name, []).append(name)
    reference = reference_logits(model, pixels)

    def measured(part: str, layers: list[str]) -> Sensitivity:
        chosen = {name: quantization.layers[name] for name in layers}
        alone = LayerQuantization(replace(quantization, layers=chosen))
        logits = alone.reference(model)(pixels)
        advance(1)
        return Sensitivity(part, len(layers), round(sqnr_db(reference, logits), 1))

    found = [measured(part, layers) for part, layers in parts.items()]
    return [*found, measured("everything", list(quantization.layers))]


def draw(sensitivities: list[Sensitivity], path: Path) -> None:
    """Draw a bar for each part as a PNG; the lowest bars are the parts to keep in float."""
    plt = load_pyplot()
    names = [s.part for s in sensitivities]
    figure, axes = plt.subplots(figsize=(9, 0.2 * len(names) + 1), layout="constrained")
    axes.barh(names, [s.sqnr_db for s in sensitivities])
    axes.invert_yaxis()
    axes.set_xlabel("SQNR of the logits with this part alone in int8, dB (lower loses more)")
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
