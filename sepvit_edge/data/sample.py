"""What every data set yields, labelled images, and the protocol that data sets follow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image

SPLITS = ("train", "calibration", "test")


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
