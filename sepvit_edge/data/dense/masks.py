"""Images with a class for each pixel: index masks in a folder beside the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import SepViTError, reason_of
from ...model.labels import check_labels
from ..find import find_images
from ..preprocess import load_image, to_rgb
from .sample import IGNORED, DenseSample

IMAGES, MASKS, LABELS = "images", "masks", "labels.txt"
_INDEX_MODES = ("L", "P", "1", "I;16", "I")


class IndexMasks:
    """A folder with ``images`` and ``masks``, and the class names in ``labels.txt``.

    The mask of ``images/a/b.jpg`` is ``masks/a/b.png``: one channel whose values are classes, in
    the order of labels.txt (a name a line), or 255 where a pixel has no class.

    Parameters
    ----------
    images, masks : Path
        The two folders.
    labels : tuple of str
        Class names.

    Raises
    ------
    SepViTError
        If a folder is missing or has no image, or an image has no mask.
    """

    def __init__(self, images: Path, masks: Path, labels: tuple[str, ...]) -> None:
        for folder in (images, masks):
            if not folder.is_dir():
                raise SepViTError(f"there is no folder {folder}")
        if len(labels) > IGNORED:
            raise SepViTError(f"index masks have at most {IGNORED} classes, not {len(labels)}")
        self.name = f"{images.absolute().parent.name}/{images.name}"
        self.labels = labels
        self._paths = [(path, _mask_of(path, images, masks)) for path in find_images(images).images]
        if not self._paths:
            raise SepViTError(f"there is no image in {images}")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> DenseSample:
        """Read one image and its mask.

        Raises
        ------
        SepViTError
            If one cannot be read, their sizes differ, or the mask has a class that there is not.
        """
        path, mask_path = self._paths[index]
        image, mask = to_rgb(load_image(path)), self.mask(index)
        if mask.shape != (image.height, image.width):
            raise SepViTError(
                f"{mask_path} has {mask.shape[1]} x {mask.shape[0]} pixels, and {path} has "
                f"{image.width} x {image.height} upright; a mask needs its image's size"
            )
        return DenseSample(image, str(path), mask=mask)

    def mask(self, index: int) -> np.ndarray:
        """Read one mask, uint8 (H, W), and check its classes."""
        path = self._paths[index][1]
        with load_image(path) as image:
            if image.mode not in _INDEX_MODES:
                raise SepViTError(
                    f"{path} is a colour image ({image.mode}); a mask holds the number of a class "
                    "in each pixel"
                )
            mask = np.asarray(image)
        wrong = (mask >= len(self.labels)) & (mask != IGNORED)
        if wrong.any():
            raise SepViTError(
                f"{path} has the class {int(mask[wrong].max())}, but there are {len(self.labels)} "
                f"classes, 0 to {len(self.labels) - 1} ({IGNORED} is for pixels without one)"
            )
        return mask.astype(np.uint8)

    def check(self) -> None:
        """Read every mask: rather now than in the middle of an epoch."""
        for index in range(len(self)):
            self.mask(index)


def read_mask_labels(path: Path, default: Sequence[str] | None = None) -> tuple[str, ...]:
    """Read the class names of a folder of masks: labels.txt in it, or in a folder above it.

    Parameters
    ----------
    path : Path
        The folder.
    default : sequence of str, optional
        Names to take where there is no such file.

    Raises
    ------
    SepViTError
        If there is no such file and no default, or it is not a list of different names.
    """
    path = path.absolute()
    file = next((p / LABELS for p in (path, *path.parents[:2]) if (p / LABELS).is_file()), None)
    if file is None:
        if default is None:
            raise SepViTError(
                f"{path} has no {LABELS}; write the class names into it, one a line, in the order "
                "of the masks' numbers"
            )
        return tuple(default)
    try:
        labels = tuple(file.read_text(encoding="utf-8-sig").strip("\n").splitlines())
        check_labels(labels)
    except (OSError, UnicodeDecodeError) as error:
        raise SepViTError(f"{file} cannot be read ({reason_of(error)})") from None
    except SepViTError as error:
        raise SepViTError(f"{file}: {error}") from None
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise SepViTError(f"{file} has the class {twice!r} twice")
    return labels


def _mask_of(image: Path, images: Path, masks: Path) -> Path:
    path = (masks / image.relative_to(images)).with_suffix(".png")
    if not path.is_file():
        raise SepViTError(f"there is no mask {path} for {image}")
    return path
