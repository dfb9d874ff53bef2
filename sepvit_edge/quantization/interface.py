"""What an export needs of a quantisation, whichever scheme it follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..model.edge.make import EdgeGraph
from ..model.quantized import Calibration
from ..model.reference import SepViT
from .images import batches

# A graph with every operation in integers takes memory in proportion to its batch.
REFERENCE_BATCH = 8


class ProgramQuantization(Protocol):
    """Integers and scales for one model, ready to be put into its program."""

    @property
    def scheme(self) -> str:
        """One line on the scheme, for manifests."""
        ...

    @property
    def trained(self) -> bool:
        """Whether the weights were trained with it."""
        ...

    @property
    def float_layers(self) -> Mapping[str, str]:
        """Layers left in float -> reason."""
        ...

    @property
    def calibration(self) -> Calibration:
        """Images that the scales of the activations come from."""
        ...

    def program(self, edge: EdgeGraph) -> ExportedProgram:
        """Quantise an edge model in place, and trace it.

        Raises
        ------
        SepViTError
            If this quantisation belongs to another model or another edge form.
        """
        ...

    def reference(self, model: SepViT) -> Callable[[np.ndarray], np.ndarray]:
        """Return a float64 reference for int8 packages.

        Parameters
        ----------
        model : SepViT
            The model that this quantisation belongs to.

        Returns
        -------
        callable
            uint8 pixels (N, image_size, image_size, 3) -> float32 logits (N, num_classes).
        """
        ...


def logits_in_batches(run: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """Run any number of images through a function of `REFERENCE_BATCH` images."""

    @torch.no_grad()
    def logits(pixels: np.ndarray) -> np.ndarray:
        parts = [run(batch)[:count] for batch, count in batches(pixels, REFERENCE_BATCH)]
        return torch.cat(parts).float().numpy()

    return logits
