"""The four published configurations, and the configuration stored with a model's weights.

Source of the table: arXiv 2203.15380, Table 1 (architectures) and Table 2 (ImageNet-1K top-1).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

from ..errors import SepViTError, unknown_name
from .labels import check_labels

HEAD_DIM = 32
MLP_RATIO = 4
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Attention's memory grows with the fourth power of the side: SepViT-T takes 26 GB for one image
# at 2048 pixels, and 16 times that at 4096.
LARGEST_IMAGE = 2048
# ImageNet-21k has 21,841; a million labels and their weights still fit any computer's memory.
MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Variant:
    """One published configuration.

    Attributes
    ----------
    key : str
        The name on the command line.
    name : str
        The name in the paper.
    width : int
        Channels of stage 1; they double with each stage.
    depths : tuple of int
        Blocks per stage.
    drop_path : float
        Stochastic depth rate of the published training recipe.
    imagenet_top1 : float
        Published ImageNet-1K top-1 in percent; NaN of other depths.
    """

    key: str
    name: str
    width: int
    depths: tuple[int, int, int, int]
    drop_path: float
    imagenet_top1: float

    @property
    def dims(self) -> tuple[int, ...]:
        """Number of channels of each stage."""
        return tuple(self.width * 2**stage for stage in range(4))

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of attention heads of each stage; every head is 32 wide."""
        return tuple(dim // HEAD_DIM for dim in self.dims)


VARIANTS = {
    v.key: v
    for v in (
        Variant("lite", "SepViT-Lite", 32, (1, 2, 6, 2), 0.1, 72.3),
        Variant("t", "SepViT-T", 96, (1, 2, 6, 2), 0.2, 82.7),
        Variant("s", "SepViT-S", 96, (1, 2, 14, 2), 0.3, 83.6),
        Variant("b", "SepViT-B", 128, (1, 2, 14, 2), 0.4, 84.2),
    )
}


def find_variant(key: str) -> Variant:
    """Look up a variant by its name on the command line.

    Four numbers from 1 to 99 behind the name are other depths: ``"lite-1-1-1-1"`` is Lite with one
    block a stage. No figures are published for those.

    Raises
    ------
    SepViTError
        If the name is unknown; the known ones are named.
    """
    name, *depths = key.lower().split("-")
    if name not in VARIANTS or len(depths) not in (0, 4):
        raise unknown_name("variant", key, VARIANTS)
    variant = VARIANTS[name]
    if not depths:
        return variant
    if not all(re.fullmatch("[1-9][0-9]?", depth) for depth in depths):
        raise unknown_name("variant", key, VARIANTS)
    one, two, three, four = map(int, depths)
    return replace(
        variant,
        key=f"{name}-{one}-{two}-{three}-{four}",
        name=f"{variant.name} ({one}, {two}, {three}, {four})",
        depths=(one, two, three, four),
        imagenet_top1=math.nan,
    )


def check_image_size(image_size: int) -> int:
    """Return `image_size` if the architecture runs there without padding.

    The last map has stride 32, and a window is as large as it; so every multiple of 32 works and
    the number of windows (64, 16, 4, 1) does not change with it.

    Raises
    ------
    SepViTError
        If it is not a positive multiple of 32, where the nearest two that work are named, or over
        the limit.
    """
    if image_size > LARGEST_IMAGE:
        raise SepViTError(
            f"image size {image_size} is over the limit of {LARGEST_IMAGE}: attention's memory "
            "grows with the fourth power of the side"
        )
    if image_size < 32 or image_size % 32:
        low = max(32, image_size // 32 * 32)
        raise SepViTError(
            f"image size {image_size} is not a multiple of 32; the nearest that work are "
            f"{low} and {low + 32}"
        )
    return image_size


def check_num_classes(num_classes: int) -> int:
    """Return `num_classes` if a classifier can have that many outputs.

    Raises
    ------
    SepViTError
        If it is less than 1 or over the limit.
    """
    if not 1 <= num_classes <= MOST_CLASSES:
        raise SepViTError(f"a classifier has 1 to {MOST_CLASSES:,} classes, not {num_classes:,}")
    return num_classes


def windows(depths: tuple[int, ...], image_size: int) -> list[list[int]]:
    """Return the window side of every block of every stage, in pixels of the stage's map.

    Odd blocks of stages 2 and 3 are grouped self-attention: 2 x 2 windows joined (section 3.3).

    Returns
    -------
    list of list of int
        At 224: ``[[7], [7, 14], [7, 14, 7, 14, 7, 14], [7, 7]]``.
    """
    ws = check_image_size(image_size) // 32
    grouped = (False, True, True, False)
    return [
        [2 * ws if grouped[stage] and block % 2 else ws for block in range(depth)]
        for stage, depth in enumerate(depths)
    ]


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an image of any size.

    Attributes
    ----------
    crop : float
        Share of the resized image's shorter side that the centre crop keeps.
    mean, std : tuple of float
        Three values, one for each RGB channel, for pixels scaled to 0..1.
    """

    crop: float = 0.875
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise SepViTError(f"the crop share must be over 0 and at most 1, not {self.crop}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(v) for v in values):
                raise SepViTError(f"{name} must be three finite numbers, not {values}")
        if min(self.std) <= 0:
            raise SepViTError(f"std must be positive, not {self.std}")

    def resize_side(self, image_size: int) -> int:
        """Return the length of the shorter side after resizing and before the crop."""
        return max(image_size, math.floor(image_size / self.crop + 1e-9))


@dataclass(frozen=True)
class ModelConfig:
    """The configuration stored with a model's weights.

    Attributes
    ----------
    variant : str
        Name of the variant; see `find_variant`.
    num_classes : int
        Size of the classifier's output.
    image_size : int
        Side of the square input in pixels, a multiple of 32.
    preprocessing : Preprocessing
        Preprocessing that the weights were trained with.
    labels : tuple of str
        Class names. Default: ``"0" ... "n-1"``.
    """

    variant: str
    num_classes: int = 1000
    image_size: int = 224
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "variant", find_variant(self.variant).key)
        check_image_size(self.image_size)
        check_num_classes(self.num_classes)
        if not self.labels:
            object.__setattr__(self, "labels", tuple(str(i) for i in range(self.num_classes)))
        if len(self.labels) != self.num_classes:
            raise SepViTError(
                f"{len(self.labels)} labels do not fit {self.num_classes} classes; "
                "give one label a class, in the order of the classifier's outputs"
            )
        check_labels(self.labels)


@dataclass(frozen=True)
class Source:
    """Origin of a model's weights.

    Attributes
    ----------
    weights_sha256 : str
        Digest of the weights themselves, as float32; it does not depend on the file.
    file_sha256 : str or None
        Digest of the checkpoint file, if any.
    file_size : int or None
        Size of the file in bytes.
    trained_on : str or None
        Built-in data set that the weights were trained on, if known.
    """

    weights_sha256: str
    file_sha256: str | None = None
    file_size: int | None = None
    trained_on: str | None = None
