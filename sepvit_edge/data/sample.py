"""What every data set yields, the protocol that data sets follow, and samples of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

SPLITS = ("train", "calibration", "test")
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Sample:
    """One image with its label.

    Attributes
    ----------
    image : PIL.Image.Image
        The image at its original size.
    label : int or None
        Index of the class; None where the class is not known.
    name : str
        Name for messages.
    """

    image: Image.Image
    label: int | None
    name: str


class Dataset(Protocol):
    """A fixed sequence of images; each is decoded when it is read."""

    name: str

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Return one image; the order is fixed."""
        ...

    def label(self, index: int) -> int | None:
        """Return the class of an image, which is not decoded for it."""
        ...


class Unlabelled:
    """A data set without its labels, for models with other classes.

    Parameters
    ----------
    data : Dataset
        The images.
    """

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self.name = data.name

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        return replace(self._data[index], label=None)

    def label(self, index: int) -> None:
        """Return None."""


class Taken:
    """Some images of a data set.

    Parameters
    ----------
    data : Dataset
        The whole set.
    indices : sequence of int
        The images to take, in their order.

    Attributes
    ----------
    name : str
        Name of the whole set.
    available : int
        Number of images in the whole set.
    labelled : bool
        Whether every image has a label.
    class_rule : str or None
        How folders were matched to classes, for folders (`sepvit_edge.data.classes`).
    left_out : dict
        Reason -> number of the files in a folder that are not read.
    parallel : bool
        Whether several threads may read images at once.
    """

    def __init__(self, data: Dataset, indices: Sequence[int]) -> None:
        self._data, self._indices = data, indices
        self.name = data.name
        self.available = len(data)
        self.labelled = all(data.label(i) is not None for i in indices)
        self.class_rule: str | None = getattr(data, "class_rule", None)
        self.left_out: dict[str, int] = getattr(data, "left_out", {})
        self.parallel: bool = getattr(data, "parallel", False)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._data[self._indices[index]]

    def title(self, index: int) -> str:
        """Return the path of an image, or its place in a built-in set; it is not read for it."""
        place = self._indices[index]
        paths = getattr(self._data, "paths", None)
        return f"{self.name}/{place}" if paths is None else str(paths[place])

    def label(self, index: int) -> int | None:
        """Return the class of an image."""
        return self._data.label(self._indices[index])


def take_spread(data: Dataset, images: int) -> Taken:
    """Take images at equal distances over a data set, as calibration does.

    A folder's images are in order of their classes, so these have the classes' shares.
    """
    count = min(images, len(data))
    return Taken(data, [i * len(data) // count for i in range(count)])


def take_evenly(data: Dataset, images: int | None = None) -> Taken:
    """Take a sample of a data set: as many images of each class, as far as it has them.

    The images of a class are drawn at random, from a fixed seed; all images where the set has no
    more. A larger sample holds the smaller ones.

    Parameters
    ----------
    data : Dataset
        The images; a sample that was taken before is cut further.
    images : int, optional
        Largest number of images. Default: all.

    Examples
    --------
    >>> from sepvit_edge.data.digits import Digits
    >>> taken = take_evenly(Digits("test"), 20)
    >>> sorted(taken.label(i) for i in range(20))
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    """
    if images is None or images >= len(data):
        return data if isinstance(data, Taken) else Taken(data, range(len(data)))
    seen: Counter[int | None] = Counter()
    turns = []  # each image with its place among those of its class
    for place, index in enumerate(np.random.default_rng(SAMPLE_SEED).permutation(len(data))):
        label = data.label(int(index))
        turns.append((seen[label], place, int(index)))
        seen[label] += 1
    taken = Taken(data, sorted(index for _, _, index in sorted(turns)[:images]))
    taken.available = getattr(data, "available", len(data))
    return taken
