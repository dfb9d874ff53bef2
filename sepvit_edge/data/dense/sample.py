"""What every data set for dense prediction yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

IGNORED = 255  # in a mask: the pixel has no class, and counts neither in training nor in a metric


@dataclass(frozen=True)
class Objects:
    """The boxes of an image.

    Attributes
    ----------
    boxes : numpy.ndarray
        float64 (N, 4): left, top, right, bottom in pixels of the image; right and bottom are
        exclusive. Each lies inside the image and has an area.
    classes : numpy.ndarray
        int64 (N,).
    crowd : numpy.ndarray
        bool (N,): the box holds several objects. They are not trained on, and what is found in it
        is neither right nor wrong.
    segments : tuple or None
        The pixels of each as COCO's files have them, polygons or run lengths, where they were asked
        for.
    size : tuple of int or None
        Height and width of the image, beside `segments`.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    segments: tuple[Any, ...] | None = None
    size: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        boxes: Sequence[Sequence[float]],
        classes: Sequence[int],
        crowd: Sequence[bool] | None = None,
        segments: Sequence[Any] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Objects:
        """Make arrays of lists."""
        return cls(
            np.array(boxes, np.float64).reshape(-1, 4),
            np.array(classes, np.int64),
            np.zeros(len(classes), bool) if crowd is None else np.array(crowd, bool),
            None if segments is None else tuple(segments),
            size,
        )

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class DenseSample:
    """One image with what is known about its pixels.

    Attributes
    ----------
    image : PIL.Image.Image
        Upright RGB at its original size.
    name : str
        Name for messages.
    mask : numpy.ndarray or None
        uint8 (H, W): class of each pixel, or `IGNORED`.
    objects : Objects or None
        The boxes.
    """

    image: Image.Image
    name: str
    mask: np.ndarray | None = None
    objects: Objects | None = None


class DenseDataset(Protocol):
    """A fixed sequence of images; each is decoded when it is read.

    Attributes
    ----------
    name : str
        Name for messages and cards.
    labels : tuple of str
        Class names, by index.
    """

    name: str
    labels: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int) -> DenseSample:
        """Return one image; the order is fixed."""
        ...
