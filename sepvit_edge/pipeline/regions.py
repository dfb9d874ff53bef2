"""How far the networks that look at regions are from their reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..model.dense import DenseConfig
from ..model.dense.config import BOX_HEAD, MASK_HEAD
from ..model.edge.dense.regions import BOX_REGIONS, MASK_REGIONS
from ..package.postprocessing import TwoStageRule
from ..postprocess.regions import region_features
from ..postprocess.two_stage import propose, pyramid


def best_regions(
    outputs: list[np.ndarray], config: DenseConfig, rule: TwoStageRule
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield features of the best proposals of each image, a call of each network.

    Parameters
    ----------
    outputs : list of numpy.ndarray
        What the first stage gives for N images, float32 (N, ...).
    config : DenseConfig
        The model's.
    rule : TwoStageRule
        The manifest's facts.

    Yields
    ------
    str
        Name of the network.
    numpy.ndarray
        float32 (regions, channels, cells, cells).
    """
    for logits, deltas, *maps in zip(*outputs, strict=True):
        proposals = propose(logits, deltas, rule, config.input_size, config.input_size)
        levels = pyramid(maps)
        for name, count, cells in (
            (BOX_HEAD, BOX_REGIONS, rule.box_cells),
            (MASK_HEAD, MASK_REGIONS, rule.mask_cells),
        ):
            yield name, region_features(levels, proposals[:count], rule, cells)


def region_outputs(
    regions: list[tuple[str, np.ndarray]], run: Callable[[str, np.ndarray], list[np.ndarray]]
) -> list[np.ndarray]:
    """Run regions through their networks, and join what comes out: an array for each output."""
    found: list[np.ndarray] = []
    for network in dict.fromkeys(name for name, _ in regions):
        parts = [run(name, x) for name, x in regions if name == network]
        found += [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    return found
