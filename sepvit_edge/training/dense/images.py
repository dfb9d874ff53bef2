"""Training images of dense models: varied, seeded sample by sample, brought to the input size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...data.dense.sample import IGNORED, DenseDataset, Objects
from ...data.dense.scenes import Scenes
from ...data.fit import Fit, nearest
from ...data.preprocess import resize
from ..data import Key
from ..recipe import TrainingRecipe

# An object of which a crop leaves less than this is not learnt.
_LEAST_SHARE = 0.3


class DenseImages(Dataset[tuple[Tensor, Any]]):
    """Varied training images with their masks, or boxes and classes.

    Parameters
    ----------
    recipe : TrainingRecipe
        Task, input size, augmentation; for scenes, the data.
    data : DenseDataset or None
        The images; None for scenes, which are drawn anew for each epoch.
    """

    def __init__(self, recipe: TrainingRecipe, data: DenseDataset | None) -> None:
        self._recipe, self._data = recipe, data
        self._count = len(self._of(0))

    def __len__(self) -> int:
        return self._count

    def _of(self, epoch: int) -> DenseDataset:
        recipe = self._recipe
        if self._data is not None:
            return self._data
        epoch = epoch % recipe.distinct_epochs if recipe.distinct_epochs else epoch
        return Scenes("train", recipe.task, None, recipe.seed, epoch, recipe.wide_fonts)

    def __getitem__(self, key: Key) -> tuple[Tensor, Any]:
        """Return uint8 (3, H, W) and the mask uint8 (H, W), or boxes (N, 4) and classes (N,)."""
        epoch, _, index = key
        sample = self._of(epoch)[index]
        rng = np.random.default_rng([self._recipe.seed, epoch, index])
        place = Placing.draw(rng, (sample.image.height, sample.image.width), self._recipe)
        pixels = place.image(sample.image, self._recipe.mean)
        pixels = lit(rng, pixels, self._recipe.dense.light)
        x = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        if sample.mask is not None:
            return x, torch.from_numpy(place.mask(sample.mask))
        assert sample.objects is not None
        boxes, classes = place.boxes(sample.objects)
        return x, (torch.from_numpy(boxes), torch.from_numpy(classes))

    @staticmethod
    def collate(samples: list[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        """Stack pixels and masks; boxes stay a list, as images have different numbers of them."""
        pixels, truth = zip(*samples, strict=True)
        stacked = torch.stack(truth) if isinstance(truth[0], Tensor) else list(truth)
        return torch.stack(pixels), stacked


@dataclass(frozen=True)
class Placing:
    """Where an image stands in the input: its scale, its corner, and whether it is mirrored.

    Attributes
    ----------
    size : tuple of int
        Height and width of the input.
    original : tuple of int
        Height and width of the image.
    content : tuple of int
        Height and width that it is resized to.
    corner : tuple of int
        Row and column of its corner; negative where it is cropped.
    mirrored : bool
        Whether left and right of the input are exchanged.
    """

    size: tuple[int, int]
    original: tuple[int, int]
    content: tuple[int, int]
    corner: tuple[int, int]
    mirrored: bool

    @classmethod
    def draw(
        cls, rng: np.random.Generator, original: tuple[int, int], recipe: TrainingRecipe
    ) -> Placing:
        """Draw a place: as evaluation has it, or by the recipe's zoom anywhere in the input."""
        low, high = recipe.dense.zoom
        size = recipe.dense.input_size
        height, width = Fit.of(original, size).content
        mirrored = bool(rng.random() < recipe.augmentation.flip)
        if low == high == 1:
            return cls(size, original, (height, width), (0, 0), mirrored)
        zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
        height, width = max(1, round(height * zoom)), max(1, round(width * zoom))
        row, column = (round(rng.random() * space) for space in (size[0] - height, size[1] - width))
        return cls(size, original, (height, width), (row, column), mirrored)

    def image(self, image: Image.Image, mean: tuple[float, float, float]) -> np.ndarray:
        """Return the input's pixels, uint8 (H, W, 3), with the mean colour around the image."""
        colour = [int(255 * value + 0.5) for value in mean]
        resized = np.asarray(resize(image, self.content[::-1]))
        return self._pasted(np.full((*self.size, 3), colour, np.uint8), resized)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the input's mask, uint8 (H, W), `IGNORED` around the image."""
        return self._pasted(np.full(self.size, IGNORED, np.uint8), nearest(mask, self.content))

    def boxes(self, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
        """Return the boxes in the input, float32 (N, 4), and their classes, int64 (N,).

        Crowds, and objects that are hardly left by a crop, are left out.
        """
        scales = np.array(self.content) / self.original
        boxes = objects.boxes * np.tile(scales[::-1], 2) + np.tile(self.corner[::-1], 2)
        whole = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        boxes = boxes.clip(0, np.tile(self.size[::-1], 2))
        sides = boxes[:, 2:] - boxes[:, :2]
        seen = (sides.prod(1) >= _LEAST_SHARE * whole) & (sides.min(1, initial=np.inf) >= 1)
        kept = seen & ~objects.crowd
        boxes = boxes[kept].astype(np.float32)
        if self.mirrored:
            boxes[:, [0, 2]] = self.size[1] - boxes[:, [2, 0]]
        return boxes, objects.classes[kept]

    def _pasted(self, canvas: np.ndarray, piece: np.ndarray) -> np.ndarray:
        row, column = self.corner
        part = piece[max(0, -row) : self.size[0] - row, max(0, -column) : self.size[1] - column]
        row, column = max(0, row), max(0, column)
        canvas[row : row + part.shape[0], column : column + part.shape[1]] = part
        return np.ascontiguousarray(canvas[:, ::-1]) if self.mirrored else canvas


def lit(rng: np.random.Generator, pixels: np.ndarray, strength: float) -> np.ndarray:
    """Change brightness and contrast at random, by up to `strength` of their range."""
    if not strength:
        return pixels
    brightness, contrast = strength * rng.uniform(-1, 1, 2)
    middle = pixels.mean()
    varied = (pixels - middle) * (1 + contrast) + middle + 255 * brightness
    return varied.clip(0, 255).astype(np.uint8)
