"""Training images: augmented, seeded sample by sample, so that any step can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..data.glyphs import LABELS, SIDE, Glyphs
from ..data.preprocess import preprocess, preprocess_batch, to_rgb
from ..data.sample import Dataset as Images
from ..errors import SepViTError
from ..model.variants import Preprocessing
from .recipe import Augmentation, TrainingRecipe
from .steps import StepPlan

# A batch sampler gives the data set this: epoch, image size, index.
Key = tuple[int, int, int]


class BatchSource(Protocol):
    """Training images that batches are made of."""

    def __getitem__(self, key: Key) -> tuple[Tensor, Any]:
        """Return uint8 (3, H, W), and what is to be learnt from it."""
        ...

    def collate(self, samples: list[tuple[Tensor, Any]]) -> Any:
        """Make a batch of images."""
        ...


class DrawnOnce:
    """Glyphs that are drawn on first use and kept in a file.

    Drawing takes longer than a training step of a small model. Workers and runs share the file:
    the first one to need an image draws it, and marks it as done once its pixels are written.

    Parameters
    ----------
    glyphs : Glyphs
        The images.
    path : Path
        Path of the two files without their suffixes, ``.pixels`` and ``.done``.
    """

    def __init__(self, glyphs: Glyphs, path: Path) -> None:
        self._glyphs = glyphs
        count = len(glyphs)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._pixels = self._open(path.with_suffix(".pixels"), (count, SIDE, SIDE, 3))
        self._done = self._open(path.with_suffix(".done"), (count,))
        self.name = glyphs.name

    @staticmethod
    def _open(path: Path, shape: tuple[int, ...]) -> np.memmap:
        with path.open("ab") as file:  # creates it, or leaves it as another process wrote it
            file.truncate(int(np.prod(shape)))
        return np.memmap(path, np.uint8, "r+", shape=shape)

    def __len__(self) -> int:
        return len(self._glyphs)

    def pixels(self, index: int) -> np.ndarray:
        """Return uint8 (96, 96, 3)."""
        if not self._done[index]:
            self._pixels[index] = np.asarray(self._glyphs[index].image)
            self._done[index] = 1
        return np.asarray(self._pixels[index])


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """Augmented training images.

    Parameters
    ----------
    recipe : TrainingRecipe
        Augmentation; for glyphs, the data.
    labels : tuple of str
        Class names.
    images : Dataset or None
        The images; None for glyphs, which are drawn anew for each epoch. Images without a label
        get class 0: they are trained on by a teacher's answers alone.
    cache : Path
        Folder for images that are drawn once.
    """

    def __init__(
        self, recipe: TrainingRecipe, labels: tuple[str, ...], images: Images | None, cache: Path
    ) -> None:
        self.labels = labels
        self._recipe, self._cache = recipe, cache
        self._rule = rule_of(recipe)
        self._images = images
        self._drawn: dict[int, Glyphs | DrawnOnce] = {}
        self._count = len(self._glyphs(0)) if self._images is None else len(self._images)

    def __len__(self) -> int:
        return self._count

    def _glyphs(self, epoch: int) -> Glyphs | DrawnOnce:
        recipe = self._recipe
        epoch = epoch % recipe.distinct_epochs if recipe.distinct_epochs else epoch
        if epoch not in self._drawn:
            wide = recipe.wide_fonts
            glyphs = Glyphs("train", seed=recipe.seed, epoch=epoch, wide=wide)
            name = f"glyphs-train{'-wide' * wide}-seed{recipe.seed}-epoch{epoch}"
            kept = recipe.distinct_epochs > 0
            self._drawn[epoch] = DrawnOnce(glyphs, self._cache / name) if kept else glyphs
        return self._drawn[epoch]

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        """Return uint8 (3, size, size) and the label."""
        epoch, size, index = key
        seed = np.random.SeedSequence([self._recipe.seed, epoch, index]).generate_state(1)[0]
        seed_everything(int(seed))
        if self._images is None:
            glyphs = self._glyphs(epoch)
            label = index % len(LABELS)
            image: Any = glyphs.pixels(index) if isinstance(glyphs, DrawnOnce) else glyphs[index]
            image = image if isinstance(image, np.ndarray) else image.image
        else:
            sample = self._images[index]
            image, label = sample.image, sample.label or 0
        varied = _varied(image, self._recipe.augmentation, self._rule, size)
        return torch.from_numpy(varied).permute(2, 0, 1).contiguous(), label

    @staticmethod
    def collate(samples: list[tuple[Tensor, int]]) -> Any:
        """Stack pixels and labels."""
        return default_collate(samples)


def rule_of(recipe: TrainingRecipe) -> Preprocessing:
    """Return the preprocessing that goes with the weights."""
    return Preprocessing(recipe.crop, recipe.mean, recipe.std)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _varied(image: Any, how: Augmentation, rule: Preprocessing, size: int) -> np.ndarray:
    """Crop, mirror and RandAugment an image; return uint8 (size, size, 3)."""
    if how == Augmentation() and isinstance(image, np.ndarray):
        return preprocess(image, rule, size)
    from PIL import Image
    from timm.data.transforms import RandomResizedCropAndInterpolation

    picture = to_rgb(Image.fromarray(image) if isinstance(image, np.ndarray) else image)
    if how.crop_scale == (1.0, 1.0):
        picture = Image.fromarray(preprocess(picture, rule, size))
    else:
        crop = RandomResizedCropAndInterpolation(size, how.crop_scale, interpolation="bilinear")
        picture = crop(picture)
    if how.flip and random.random() < how.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how.randaugment:
        picture = _randaugment(how.randaugment, size, rule.mean)(picture)
    return np.array(picture)


@cache
def _randaugment(policy: str, size: int, mean: tuple[float, ...]) -> Any:
    from timm.data.auto_augment import rand_augment_transform

    parameters = {
        "translate_const": int(size * 0.45),
        "img_mean": tuple(round(255 * value) for value in mean),
    }
    return rand_augment_transform(policy, parameters)


def training_batches(
    images: BatchSource, plan: StepPlan, first: int, rank: int, workers: int
) -> Iterator[tuple[Tensor, Any]]:
    """Load the batches of the steps from `first` on.

    The order is drawn anew for each epoch; each device takes its share of every batch.

    Parameters
    ----------
    images : BatchSource
        The images.
    plan : StepPlan
        Steps of the run.
    first : int
        First step, counted from 0.
    rank : int
        Number of this device.
    workers : int
        Number of processes that load images.

    Yields
    ------
    tuple
        Pixels, uint8 (B, 3, H, W), and what is to be learnt: of a classifier, labels (B,).

    Raises
    ------
    SepViTError
        If an image cannot be used.
    """

    class BatchKeys:
        def __iter__(self) -> Iterator[list[Key]]:
            recipe = plan.recipe
            for step in range(first, plan.steps):
                epoch, place = divmod(step, plan.steps_an_epoch)
                order = _order(recipe.seed, epoch, plan.images)
                start = (place * plan.world + rank) * recipe.batch
                chosen = order[start : start + recipe.batch]
                size = plan.image_size(step)
                yield [(epoch, size, int(index)) for index in chosen]

        def __len__(self) -> int:
            return plan.steps - first

    loader = DataLoader(
        cast(Any, _Batches(images)),
        batch_size=None,
        sampler=cast(Any, BatchKeys()),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch


class _Batches(Dataset[Any]):
    """Whole batches of images, by lists of keys.

    An error is returned, not raised: torch would replace its sentence by the trace of the loading
    process.
    """

    def __init__(self, images: BatchSource) -> None:
        self._images = images

    def __getitem__(self, keys: list[Key]) -> Any:
        try:
            return self._images.collate([self._images[key] for key in keys])
        except (SepViTError, OSError) as error:
            return error


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Turn the error for a loading process that was killed, raised anywhere, into a sentence.

    Raises
    ------
    SepViTError
        If a loading process was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise SepViTError(
            "a process that loads images was killed; memory may be short: give fewer --workers, or "
            "0, and repeat the command with --resume"
        ) from None


@lru_cache(2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class BatchPreparation:
    """Normalisation of batches, and the augmentation that works on whole batches.

    Attributes
    ----------
    mean, std : Tensor
        Of the input, (1, 3, 1, 1), in grey levels 0-255.
    mix, erase : callable or None
        timm's Mixup and RandomErasing.
    """

    mean: Tensor
    std: Tensor
    mix: Any
    erase: Any

    @classmethod
    def of(cls, recipe: TrainingRecipe, classes: int, device: torch.device) -> BatchPreparation:
        """Prepare batches as a recipe asks for.

        Parameters
        ----------
        recipe : TrainingRecipe
            Normalisation and augmentation.
        classes : int
            Number of classes.
        device : torch.device
            Device of the result.
        """
        from timm.data import Mixup
        from timm.data.random_erasing import RandomErasing

        how = recipe.augmentation
        mix = erase = None
        if how.mixup or how.cutmix:
            smoothing = recipe.label_smoothing
            mix = Mixup(how.mixup, how.cutmix, label_smoothing=smoothing, num_classes=classes)
        if how.erasing:
            erase = RandomErasing(how.erasing, mode="pixel", device=device)
        mean, std = (
            torch.tensor(v, device=device).reshape(1, 3, 1, 1) * 255
            for v in (recipe.mean, recipe.std)
        )
        return cls(mean, std, mix, erase)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels (B, 3, H, W) as the model takes them."""
        return (pixels.to(self.mean.device).float() - self.mean) / self.std

    def prepare(self, pixels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised images, and labels (B,) or, mixed, their shares (B, classes)."""
        x, y = self.normalized(pixels), classes.to(self.mean.device)
        if self.mix is not None:
            x, y = self.mix(x, y)
        if self.erase is not None:
            x = self.erase(x)
        return x, y


def evaluation_batches(
    data: Images, rule: Preprocessing, size: int, batch: int = 64
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield uint8 (B, 3, size, size) and labels (B,), preprocessed as for a package."""
    for start in range(0, len(data), batch):
        samples = [data[i] for i in range(start, min(start + batch, len(data)))]
        pixels = preprocess_batch([s.image for s in samples], rule, size)
        labels = torch.tensor([s.label for s in samples])
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2), labels
