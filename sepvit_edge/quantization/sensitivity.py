"""Measure what each block costs when it alone is quantised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..charts import load_pyplot
from ..files import replacing_file
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
    noise_power : float
        Mean square of the logits' error.
    noise_share : float
        Share of the noise power of all parts, each alone. Everything together has about 1, as
        independent errors add up.
    """

    part: str
    layers: int
    sqnr_db: float
    noise_power: float
    noise_share: float


def layers_by_part(names: Sequence[str]) -> dict[str, list[str]]:
    """Group layers of the edge form by their part of the network, in its order."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(part_of(name.replace(".", "_")) or name, []).append(name)
    return parts


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
    parts = layers_by_part(list(quantization.layers))
    parts["everything"] = list(quantization.layers)
    reference = reference_logits(model, pixels)
    ratios, powers = {}, {}
    for part, layers in parts.items():
        chosen = {name: quantization.layers[name] for name in layers}
        logits = LayerQuantization(replace(quantization, layers=chosen)).reference(model)(pixels)
        ratios[part] = round(sqnr_db(reference, logits), 1)
        powers[part] = float(((logits - reference).astype(np.float64) ** 2).mean())
        advance(1)
    total = sum(powers.values()) - powers["everything"] or 1.0
    return [
        Sensitivity(part, len(parts[part]), ratios[part], powers[part], powers[part] / total)
        for part in parts
    ]


def by_noise(sensitivities: Sequence[Sensitivity]) -> list[Sensitivity]:
    """Return the parts, those that add the most noise first; everything is left out."""
    return sorted(sensitivities[:-1], key=lambda one: -one.noise_power)


def draw(sensitivities: Sequence[Sensitivity], path: Path, title: str) -> None:
    """Draw a bar for each part as a PNG, the longest first: the parts to keep in float.

    Parameters
    ----------
    sensitivities : sequence of Sensitivity
        As `scan` returns them.
    path : Path
        The file to write.
    title : str
        The model and the images.
    """
    plt = load_pyplot()
    parts = by_noise(sensitivities)
    figure, axes = plt.subplots(figsize=(9, 0.2 * len(parts) + 1.4), layout="constrained")
    bars = axes.barh([one.part for one in parts], [100 * one.noise_share for one in parts])
    labels = [f"{one.noise_share:.1%}, {one.sqnr_db:g} dB" for one in parts]
    axes.bar_label(bars, labels, padding=3, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.15, y=0.01)
    together = sensitivities[-1].sqnr_db
    axes.set_title(
        f"What int8 costs in each part: {title} ({together:g} dB with everything in int8)",
        fontsize=10,
        parse_math=False,
    )
    axes.set_xlabel("share of the noise power in the logits, %; SQNR with this part alone in int8")
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="x", alpha=0.3)
    with replacing_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    plt.close(figure)
