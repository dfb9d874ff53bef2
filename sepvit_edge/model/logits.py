"""Logits of the reference for preprocessed pixels, in fp32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from .create import ReferenceModel
from .dense import DenseModel
from .dense.config import BOX_HEAD, MASK_HEAD
from .reference import SepViT

_BATCH = 16


def reference_logits(model: SepViT, pixels: np.ndarray) -> np.ndarray:
    """Run the reference on preprocessed pixels, in fp32 on the CPU.

    Parameters
    ----------
    model : SepViT
        In evaluation mode.
    pixels : numpy.ndarray
        uint8 (N, image_size, image_size, 3).

    Returns
    -------
    numpy.ndarray
        float32 (N, num_classes).
    """
    with torch.no_grad():
        batches = torch.from_numpy(pixels).split(_BATCH)
        return torch.cat([model(normalize(model, batch)) for batch in batches]).numpy()


def normalize(model: ReferenceModel, pixels: Tensor) -> Tensor:
    """Turn uint8 (N, H, W, 3) pixels into the reference's normalised float32 (N, 3, H, W)."""
    rule = model.config.preprocessing
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (rule.mean, rule.std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def reference_outputs(model: DenseModel, pixels: np.ndarray) -> list[np.ndarray]:
    """Run a dense reference on preprocessed pixels, in fp32 on the CPU.

    Parameters
    ----------
    model : DenseModel
        In evaluation mode.
    pixels : numpy.ndarray
        uint8 (N, H, W, 3).

    Returns
    -------
    list of numpy.ndarray
        float32 (N, ...), one array an output.
    """
    with torch.no_grad():
        images = [as_tuple(model(normalize(model, x))) for x in torch.from_numpy(pixels).split(1)]
    return [torch.cat(parts).numpy() for parts in zip(*images, strict=True)]


def reference_heads(model: DenseModel) -> Callable[[str, np.ndarray], list[np.ndarray]]:
    """Return the networks of a two-stage reference that look at regions, in fp32 on the CPU.

    Parameters
    ----------
    model : DenseModel
        In evaluation mode; the function is for Mask R-CNN alone.

    Returns
    -------
    callable
        Name of a network and features of regions (N, ...) -> its outputs (N, ...).
    """

    @torch.no_grad()
    def run(name: str, regions: np.ndarray) -> list[np.ndarray]:
        network = {BOX_HEAD: model.roi_head.bbox_head, MASK_HEAD: model.roi_head.mask_head}[name]
        return [output.numpy() for output in as_tuple(network(torch.from_numpy(regions)))]

    return run


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the outputs of a model that has one or several."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Limit torch to a number of threads while the block runs.

    Rounding depends on how a sum is split; one thread, which exports use, gives the same result
    on any number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
