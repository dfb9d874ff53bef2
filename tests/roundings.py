"""The roundings of a runtime's int8, one by one, beside torch's.

Two right results of one int8 model differ by about what int8 costs, as soon as one activation is
rounded the other way: everything behind it moves. So outputs alone show little. Here a runtime also
returns every rounded tensor, and torch computes on with the runtime's integers instead of its
own: each rounding is compared by itself, and the outputs are compared without any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from sepvit_edge.config.recipe import Recipe
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.dense import DenseModel
from sepvit_edge.model.edge import find_form
from sepvit_edge.model.edge.dense import DenseEdgeModel
from sepvit_edge.model.logits import as_tuple
from sepvit_edge.pipeline.twins import run_twin
from sepvit_edge.quantization import scheme

_rounded = scheme._fake_quantize


@dataclass
class Recorder:
    """Stands for the scheme's rounding, and keeps each rounded tensor once.

    Attributes
    ----------
    kept : list of Tensor
        Rounded tensors, in the order of the network; q, k and v share theirs.
    """

    kept: list[Tensor] = field(default_factory=list)
    _seen: dict[tuple[int, float], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, x: Tensor, scale: float | None) -> Tensor:
        if scale is None:
            return x
        key = id(x), scale
        if key not in self._seen:
            y = self.rounded(x, scale)
            self.kept.append(y)
            self._seen[key] = x, y  # x stays alive, so that its id stays its own
        return self._seen[key][1]

    def rounded(self, x: Tensor, scale: float) -> Tensor:
        """Round as the scheme does."""
        return _rounded(x, scale)


@dataclass
class Forced(Recorder):
    """Takes given integers, and counts where they are not those that torch would round to.

    Attributes
    ----------
    given : list of numpy.ndarray
        A runtime's rounded tensors, (rows, C).
    values, others : int
        Values that are rounded; those that the runtime rounds to another integer.
    farthest : float
        Of the latter, the largest distance from the value to the border that it crossed, in steps.
    off_grid : float
        Largest distance of a given value from an integer, in steps: 0.5 where a runtime left a
        rounding out.
    """

    given: list[np.ndarray] = field(default_factory=list)
    values: int = 0
    others: int = 0
    farthest: float = 0.0
    off_grid: float = 0.0

    def rounded(self, x: Tensor, scale: float) -> Tensor:
        """Return the given integers times the scale."""
        given = torch.from_numpy(self.given[len(self.kept)]).double()
        if x.ndim == 4:
            given = given.reshape(1, *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
        integers, steps = (given / scale).round(), x / scale
        self.off_grid = max(self.off_grid, float((given / scale - integers).abs().max()))
        low, high = scheme.ACTIVATION_RANGE
        wrong = steps.round().clamp(low, high) != integers
        self.values += x.numel()
        self.others += int(wrong.sum())
        if wrong.any():
            beyond = (steps.clamp(low, high) - integers).abs()[wrong] - 0.5
            self.farthest = max(self.farthest, float(beyond.max()))
        return integers * scale


@dataclass
class Noisy(Recorder):
    """Adds noise in front of each rounding, as another order of additions does.

    Attributes
    ----------
    share : float
        Its standard deviation, as a share of the tensor's root mean square.
    seed : int
        Seed of it.
    """

    share: float = 1e-6
    seed: int = 0

    def __post_init__(self) -> None:
        self._source = torch.Generator().manual_seed(self.seed)

    def rounded(self, x: Tensor, scale: float) -> Tensor:
        """Round the sum."""
        noise = torch.randn(x.shape, generator=self._source, dtype=x.dtype)
        return _rounded(x + self.share * x.square().mean().sqrt() * noise, scale)


class RoundingsTapped(DenseEdgeModel):
    """Also returns every rounded tensor as (rows, C), where a `Recorder` is in place."""

    kept = 0  # known once it is traced

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, then the rounded tensors."""
        recorder = scheme._fake_quantize
        assert isinstance(recorder, Recorder)
        RoundingsTapped.kept = 0
        outputs = as_tuple(super().forward(pixels))
        RoundingsTapped.kept = len(recorder.kept)
        rows = [
            x if x.ndim == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
            for x in recorder.kept
        ]
        return (*outputs, *rows)

    @property
    def tap_names(self) -> list[str]:
        """Names of the rounded tensors."""
        return [f"rounding_{i}" for i in range(RoundingsTapped.kept)]


def torch_int8(
    model: DenseModel, pixels: np.ndarray, recorder: Recorder | None = None
) -> list[np.ndarray]:
    """Run torch's int8 of a quantised model in float64, with another rounding if one is given."""
    assert model.quantization is not None
    run = scheme.LayerQuantization(model.quantization).outputs(model)
    with patch.object(scheme, "_fake_quantize", recorder or Recorder()):
        return run(pixels)


@dataclass(frozen=True)
class Comparison:
    """A runtime's int8 beside torch's.

    Attributes
    ----------
    free_db : list of float
        SQNR of each output against torch's int8.
    forced_db : list of float
        The same, where torch goes on with the runtime's integers.
    rounding : Forced
        What the single roundings show.
    """

    free_db: list[float]
    forced_db: list[float]
    rounding: Forced


def compare(model: DenseModel, recipe: Recipe, pixels: np.ndarray) -> Comparison:
    """Compare a runtime with torch, rounding by rounding.

    Parameters
    ----------
    model : DenseModel
        With its `quantization`.
    recipe : Recipe
        An int8 one.
    pixels : numpy.ndarray
        uint8 (1, H, W, 3).
    """
    edge = RoundingsTapped(model, find_form(recipe.edge.form))
    with patch.object(scheme, "_fake_quantize", Recorder()):
        outputs = [*run_twin(model, recipe, pixels, edge).values()]
    measured, given = outputs[: len(edge.output_names)], outputs[len(edge.output_names) :]
    forced = Forced(given=given)
    free_db, forced_db = (
        [round(sqnr_db(*pair), 1) for pair in zip(wanted, measured, strict=True)]
        for wanted in (torch_int8(model, pixels), torch_int8(model, pixels, forced))
    )
    assert len(forced.kept) == len(given)
    return Comparison(free_db, forced_db, forced)
