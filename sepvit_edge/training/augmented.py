"""A contact sheet of training images as the model sees them."""

from __future__ import annotations

from pathlib import Path

import torch

from ..contact_sheet import Tile, write_contact_sheet
from .data import BatchPreparation, TrainingImages, seed_everything
from .recipe import TrainingRecipe

AUGMENTED = "augmented.png"
_IMAGES = 24


def draw_augmented(images: TrainingImages, recipe: TrainingRecipe, run: Path) -> None:
    """Draw some images of the first epoch after every augmentation, with their classes.

    Parameters
    ----------
    images : TrainingImages
        The images; those drawn lie evenly over the set.
    recipe : TrainingRecipe
        Augmentation of batches, and the image size that the run ends with.
    run : Path
        Folder for the picture.
    """
    size, count = recipe.resolution_schedule[-1][0], min(_IMAGES, len(images)) // 2 * 2
    chosen = [images[0, size, i * len(images) // count] for i in range(count)]
    pixels = torch.stack([image for image, _ in chosen])
    labels = torch.tensor([label for _, label in chosen])
    batches = BatchPreparation.of(recipe, len(images.labels), torch.device("cpu"))
    seed_everything(recipe.seed)
    x, shares = batches.prepare(pixels, labels)
    seen = (x * batches.std + batches.mean).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    named = not recipe.distillation.unlabelled
    tiles = [
        Tile(image.numpy(), _caption(share, images.labels) if named else ())
        for image, share in zip(seen, shares, strict=True)
    ]
    write_contact_sheet(tiles, run / AUGMENTED)


def _caption(share: torch.Tensor, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Name the class of an image, or the two classes that were mixed with their shares."""
    if share.ndim == 0:
        return (labels[int(share)],)
    most = share.topk(min(2, len(labels)))
    pairs = zip(most.values.tolist(), most.indices.tolist(), strict=True)
    return tuple(f"{labels[index]} {value:.0%}" for value, index in pairs if value > 0.1)
