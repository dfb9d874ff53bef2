"""Post-training quantisation: scales of the activations, measured on images.

The choice of a scale was decided by measurement (docs/quantization.md): the clipping with the
least squared error, on histograms of every tensor, against a percentile and the plain maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ..data.sample import Dataset
from ..model.create import ReferenceModel
from ..model.dense import DenseModel
from ..model.edge.dense import region_models
from ..model.edge.make import EdgeGraph, edge_model
from ..model.logits import as_tuple
from ..model.quantized import Calibration, Quantization, QuantizedLayer
from ..model.reference import SepViT
from .images import batches, calibration_pixels
from .scheme import (
    LAST_LAYERS,
    choose_float,
    quantizable_layers,
    quantize_weight,
    scheme_float,
    weight_scales,
)

Method = Literal["mse", "percentile", "min-max"]
METHODS: tuple[Method, ...] = ("mse", "percentile", "min-max")
CALIBRATION_IMAGES = 128
_BATCH = 8
_BINS = 2048
_PERCENTILE = 0.9999
_LEVELS = 127.5  # on each side of zero, of 256


class MagnitudeHistogram:
    """Magnitudes of a tensor over all images; the range doubles when it has to."""

    def __init__(self) -> None:
        self.counts = torch.zeros(_BINS)
        self.top = 0.0
        self.largest = 0.0

    def add(self, x: Tensor) -> None:
        """Count one tensor."""
        magnitudes = x.detach().abs().flatten().float()
        largest = float(magnitudes.max())
        self.largest = max(self.largest, largest)
        if self.top == 0.0:
            self.top = max(largest, 1e-6)
        while self.top < largest:  # two bins become one
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = torch.cat((pairs, torch.zeros(_BINS // 2)))
            self.top *= 2
        self.counts += torch.histc(magnitudes, _BINS, 0, self.top)

    def scale(self, method: Method) -> float:
        """Choose the int8 scale."""
        largest = max(self.largest, 1e-6)
        if method == "min-max":
            return largest / _LEVELS
        edges = torch.arange(1, _BINS + 1) * (self.top / _BINS)
        if method == "percentile":
            share = self.counts.cumsum(0) / self.counts.sum()
            index = int(torch.searchsorted(share, torch.tensor(_PERCENTILE)))
            return min(largest, float(edges[min(index, _BINS - 1)])) / _LEVELS
        middle = edges - self.top / _BINS / 2
        limits = largest * torch.linspace(0.1, 1.0, 181)[:, None]
        rounding = (limits / _LEVELS) ** 2 / 12
        clipping = (middle - limits).clamp(min=0) ** 2
        errors = (self.counts * torch.where(middle <= limits, rounding, clipping)).sum(1)
        return float(limits[errors.argmin(), 0]) / _LEVELS


# Outputs (1, ...) of the first graph -> name of each other one, and typical inputs of it.
Regions: TypeAlias = Callable[[list[np.ndarray]], Iterable[tuple[str, np.ndarray]]]


@torch.no_grad()
def observe(
    model: ReferenceModel,
    pixels: np.ndarray,
    advance: Callable[[int], None] = lambda _: None,
    regions: Regions | None = None,
) -> dict[str, tuple[MagnitudeHistogram, MagnitudeHistogram]]:
    """Run the edge form and collect histograms of every layer's input and output.

    `regions` is for a model of several graphs.
    """
    size = _BATCH if isinstance(model, SepViT) else 1
    edge, *others = graphs_of(model, size)
    histograms: dict[str, tuple[MagnitudeHistogram, MagnitudeHistogram]] = {}
    hooks = []
    for name, layer in _layers((edge, *others)).items():
        pair = histograms[name] = (MagnitudeHistogram(), MagnitudeHistogram())

        def hook(
            _: object,
            inputs: tuple[Tensor, ...],
            output: Tensor,
            pair: tuple[MagnitudeHistogram, MagnitudeHistogram] = pair,
        ) -> None:
            pair[0].add(inputs[0])
            pair[1].add(output)

        hooks.append(layer.register_forward_hook(hook))
    for batch, count in batches(pixels, size):
        outputs = [output.numpy() for output in as_tuple(edge(batch))]
        for name, x in regions(outputs) if regions is not None else ():
            (graph,) = (other for other in others if other.name == name)
            for piece, _ in batches(x, len(graph.example_input())):
                graph(piece)
        advance(count)
    for handle in hooks:
        handle.remove()
    return histograms


def graphs_of(model: ReferenceModel, batch: int = 1) -> list[Any]:
    """Make the edge forms of all of a model's graphs, the first one first."""
    others = region_models(model) if isinstance(model, DenseModel) else []
    return [edge_model(model, batch), *others]


def _layers(graphs: Iterable[EdgeGraph]) -> dict[str, nn.Linear | nn.Conv2d]:
    return {name: layer for graph in graphs for name, layer in quantizable_layers(graph).items()}


def calibrate(
    model: ReferenceModel,
    data: Dataset,
    *,
    images: int = CALIBRATION_IMAGES,
    keep_float: Sequence[str] = (),
    method: Method = "mse",
    advance: Callable[[int], None] = lambda _: None,
    regions: Regions | None = None,
) -> Quantization:
    """Quantise a trained model without training.

    Parameters
    ----------
    model : SepViT or DenseModel
        The model, in evaluation mode.
    data : Dataset
        Typical images; not those that accuracy is measured on.
    images : int
        Number of them to use, evenly over the set.
    keep_float : sequence of str
        Patterns of layers to leave in float, besides the scheme's own.
    method : str
        Rule that chooses the scales of activations.
    advance : callable
        Called with the number of images done.
    regions : callable, optional
        Of a model of several graphs; see `Regions`.

    Raises
    ------
    SepViTError
        If a pattern matches no layer, or the data has no images.
    """
    pixels, digest = calibration_pixels(model, data, images)
    layers = _layers(graphs_of(model))
    float_layers = scheme_float(layers) | choose_float(layers, keep_float)
    histograms = observe(model, pixels, advance, regions)
    quantized = {}
    for name, layer in layers.items():
        if name in float_layers:
            continue
        before, behind = histograms[name]
        scale = weight_scales(layer.weight)
        quantized[name] = QuantizedLayer(
            quantize_weight(layer.weight, scale),
            scale,
            *(
                (None, None)
                if name in LAST_LAYERS
                else (before.scale(method), behind.scale(method))
            ),
        )
    facts = Calibration(data.name, len(pixels), digest, method)
    return Quantization(quantized, float_layers, facts)
