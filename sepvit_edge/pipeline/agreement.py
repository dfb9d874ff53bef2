"""How far two dense models agree."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..scoring.detection import shared_boxes
from ..scoring.segmentation import agreement
from .answers import Answer


@dataclass
class Agreement:
    """What two models find in the same images, counted image by image.

    Class maps agree by the share of pixels with one class. Boxes agree by those that both have, at
    an overlap of 0.5, as a share of both's mean number.
    """

    _pixels: list[float] = field(default_factory=list)
    _shared: int = 0
    _boxes: int = 0

    def add(self, reference: Answer, measured: Answer) -> None:
        """Count the answers to one image."""
        if reference.classes is not None and measured.classes is not None:
            self._pixels.append(agreement(reference.classes, measured.classes))
        elif reference.found is not None and measured.found is not None:
            self._shared += shared_boxes(reference.found, measured.found)
            self._boxes += len(reference.found) + len(measured.found)

    @property
    def share(self) -> float | None:
        """Share of what agrees, 0..1; None if neither model found a box."""
        if self._pixels:
            return float(np.mean(self._pixels))
        return 2 * self._shared / self._boxes if self._boxes else None
