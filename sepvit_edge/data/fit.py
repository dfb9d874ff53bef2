"""Where an image of any size stands inside the fixed input of a dense model, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fit:
    """An image resized in its own proportions, in the top left corner of an input.

    Attributes
    ----------
    original : tuple of int
        Height and width of the image.
    content : tuple of int
        Height and width of the resized image.
    """

    original: tuple[int, int]
    content: tuple[int, int]

    @classmethod
    def of(cls, original: tuple[int, int], size: tuple[int, int]) -> Fit:
        """Return the largest content inside an input; both sizes are (height, width).

        Examples
        --------
        >>> Fit.of((480, 640), (256, 256)).content
        (192, 256)
        """
        height, width = original
        if width * size[0] >= height * size[1]:  # as wide as the input
            content = max(1, height * size[1] // width), size[1]
        else:
            content = size[0], max(1, width * size[0] // height)
        return cls(original, content)

    def boxes_in(self, boxes: np.ndarray) -> np.ndarray:
        """Move boxes (N, 4) of the image into the input, in float64."""
        return boxes.astype(np.float64) * self._scales(self.content, self.original)

    def boxes_back(self, boxes: np.ndarray) -> np.ndarray:
        """Move boxes (N, 4) of the input back to the image.

        Each coordinate is multiplied with ``original / content`` of its axis in float64, and
        rounded to float32.
        """
        scales = self._scales(self.original, self.content)
        return (boxes.astype(np.float64) * scales).astype(np.float32)

    def map_in(self, classes: np.ndarray, size: tuple[int, int], outside: int) -> np.ndarray:
        """Resize a class map of the image to the input of `size`; `outside` fills the padding."""
        result = np.full(size, outside, classes.dtype)
        height, width = self.content
        result[:height, :width] = nearest(classes, self.content)
        return result

    def map_back(self, classes: np.ndarray) -> np.ndarray:
        """Cut the image out of a class map of the input, and resize it to the image.

        The pixel x of n takes pixel ``(2 * x + 1) * content // (2 * n)``, along either axis.
        """
        return nearest(classes[: self.content[0], : self.content[1]], self.original)

    @staticmethod
    def _scales(to: tuple[int, int], of: tuple[int, int]) -> np.ndarray:
        x, y = to[1] / of[1], to[0] / of[0]
        return np.array([x, y, x, y])


def nearest(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map (h, w) to the nearest pixels, by integers alone."""
    rows, columns = (
        (2 * np.arange(to) + 1) * length // (2 * to)
        for to, length in zip(size, x.shape, strict=True)
    )
    return x[rows[:, None], columns]
