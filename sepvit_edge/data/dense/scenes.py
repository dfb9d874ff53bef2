"""The built-in data set `scenes`: plates with a character on them, drawn when they are read.

An image shows one to four plates on a cluttered ground, of four shapes, at any place, in many sizes
and colours, turned a little, at times behind another one. The shape of a plate is the class of its
pixels and of its box; the character, in any font, is there to distract. (The character as the class
was tried first: after 6,000 images of training plates were found, and characters were guessed.)

The fonts of the test split are in no other split (`sepvit_edge.data.glyphs`). The same arguments
give the same bytes, in any process and order; other versions of Pillow or numpy may differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ...errors import unknown_name
from ..glyphs import (
    CAPITAL,
    LABELS,
    draw_colours,
    draw_texture,
    font_files,
    open_font,
    to_image,
)
from ..sample import SPLITS
from .run_lengths import run_lengths
from .sample import DenseSample, Objects

SHAPES = ("disc", "square", "triangle", "diamond")
GROUND = "ground"
SIZES = {"train": 1_000, "calibration": 100, "test": 400}
SIDE = 128  # pixels, of an image


@dataclass(frozen=True)
class Ranges:
    """How hard the scenes are; lengths are shares of the image's side.

    Attributes
    ----------
    plates : tuple of int
        Fewest and most plates.
    height : tuple of float
        Height of a plate.
    width : tuple of float
        Width of a plate / its height.
    character : tuple of float
        Height of a capital / that of the plate.
    turn : float
        Largest angle, in degrees.
    hidden : float
        Largest share of a plate that a later one may hide.
    blur, grain : float
        Largest blur in pixels, and noise in grey levels; each in half of the images.
    """

    plates: tuple[int, int] = (1, 4)
    height: tuple[float, float] = (0.3, 0.5)
    width: tuple[float, float] = (0.8, 1.2)
    character: tuple[float, float] = (0.3, 0.6)
    turn: float = 15.0
    hidden: float = 0.15
    blur: float = 1.0
    grain: float = 14.0


RANGES = Ranges()
_TRIES = 12  # to find a place for a plate
_EDGE = 3  # pixels around a plate, for its turned corners


class Scenes:
    """Scenes of plates.

    Parameters
    ----------
    split : str
        ``"train"``, ``"calibration"`` or ``"test"``.
    task : str
        ``"segmentation"``: a mask, with the ground as class 0; ``"detection"``: boxes; or
        ``"instance-segmentation"``: boxes with masks.
    size : int, optional
        Number of images; 1,000, 100 or 400 by default.
    seed, epoch : int
        Seed of the images; each epoch of training has others. 0 .. 2**32 - 1.
    wide : bool
        Train and calibrate on the fonts of `sepvit_edge.data.glyphs.WIDE_FONTS` too.

    Raises
    ------
    SepViTError
        If there is no such split, or a font is not installed.

    Examples
    --------
    >>> scene = Scenes("test", "detection")[0]
    >>> scene.image.size, len(scene.objects) in range(1, 5)
    ((128, 128), True)
    """

    def __init__(
        self,
        split: str,
        task: str,
        size: int | None = None,
        seed: int = 0,
        epoch: int = 0,
        wide: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        self._count = SIZES[split] if size is None else size
        self._entropy = (SPLITS.index(split), seed, epoch)
        self._fonts = font_files(split, wide)
        self._task = task
        self.name = f"scenes/{split}"
        self.labels = scene_labels(task)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> DenseSample:
        """Draw one scene."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, index {index} is out of range")
        rng = np.random.default_rng([*self._entropy, index])
        image, owners, shapes = _draw(rng, self._fonts)
        name = f"{self.name}/{index}"
        if self._task == "segmentation":
            classes = np.array([0, *(1 + shape for shape in shapes)], np.uint8)
            return DenseSample(image, name, mask=classes[owners])
        objects = _boxes(owners, shapes)
        if self._task == "instance-segmentation":
            segments = (run_lengths(owners == 1 + i) for i in range(len(shapes)))
            objects = replace(objects, segments=tuple(segments), size=(SIDE, SIDE))
        return DenseSample(image, name, objects=objects)


def scene_labels(task: str) -> tuple[str, ...]:
    """Return the class names for a task."""
    return (GROUND, *SHAPES) if task == "segmentation" else SHAPES


def _boxes(owners: np.ndarray, shapes: list[int]) -> Objects:
    """Return the boxes around the visible pixels of each plate."""
    boxes = []
    for owner in range(1, len(shapes) + 1):
        rows, columns = np.nonzero(owners == owner)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return Objects.of(boxes, shapes)


def _draw(
    rng: np.random.Generator, fonts: tuple[tuple[str, ...], ...]
) -> tuple[Image.Image, np.ndarray, list[int]]:
    """Draw a scene.

    Returns
    -------
    image : PIL.Image.Image
        (SIDE, SIDE) RGB.
    owners : numpy.ndarray
        uint8 (SIDE, SIDE): 0 on the ground, n on the n-th plate.
    shapes : list of int
        The shape of each plate.
    """
    ground, _, _ = draw_colours(rng)
    scene = to_image(ground + 70 * rng.random() * _surface(rng))
    owners = np.zeros((SIDE, SIDE), np.uint8)
    shapes: list[int] = []
    for _ in range(int(rng.integers(RANGES.plates[0], RANGES.plates[1] + 1))):
        shape = int(rng.integers(len(SHAPES)))
        family = fonts[rng.integers(len(fonts))]
        plate, ink = _plate(rng, family[rng.integers(len(family))], SHAPES[shape])
        place = _place(rng, np.asarray(plate) > 127, owners)
        if place is None:
            continue
        colour, letter, _ = draw_colours(rng)
        for paint, mask in ((colour, plate), (letter, ink)):
            plain = Image.new("RGB", mask.size, tuple(paint.clip(0, 255).astype(int).tolist()))
            scene.paste(plain, place, mask)
        shapes.append(shape)
        owners[np.asarray(_moved(plate, place)) > 127] = len(shapes)
    if rng.random() < 0.5:
        scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, RANGES.blur)))
    if rng.random() < 0.5:
        grain = rng.standard_normal((SIDE, SIDE, 3), dtype=np.float32)
        scene = to_image(np.asarray(scene) + rng.uniform(2, RANGES.grain) * grain)
    return scene, owners, shapes


def _surface(rng: np.random.Generator) -> np.ndarray:
    """Draw the look of a surface, float32 (SIDE, SIDE, 3), about -1..1."""
    levels = Image.fromarray(((draw_texture(rng) + 2) * 63).clip(0, 255).astype(np.uint8))
    return np.asarray(levels.resize((SIDE, SIDE)), np.float32) / 63 - 2


def _plate(rng: np.random.Generator, font_file: str, shape: str) -> tuple[Image.Image, Image.Image]:
    """Draw where a plate is, and where its character's ink is: two images "L" of one size."""
    height = rng.uniform(*RANGES.height) * SIDE
    width = height * rng.uniform(*RANGES.width)
    plate = Image.new("L", (int(width) + 2 * _EDGE, int(height) + 2 * _EDGE))
    ink = plate.copy()
    left, top, right, bottom = _EDGE, _EDGE, plate.width - _EDGE - 1, plate.height - _EDGE - 1
    middle = (left + right) / 2, (top + bottom) / 2
    pen = ImageDraw.Draw(plate)
    if shape == "disc":
        pen.ellipse((left, top, right, bottom), fill=255)
    elif shape == "square":
        pen.rectangle((left, top, right, bottom), fill=255)
    elif shape == "triangle":
        pen.polygon([(middle[0], top), (right, bottom), (left, bottom)], fill=255)
    else:
        sides = [(middle[0], top), (right, middle[1]), (middle[0], bottom), (left, middle[1])]
        pen.polygon(sides, fill=255)
    character = LABELS[rng.integers(len(LABELS))]
    font = open_font(font_file)
    font = font.font_variant(size=font.size * height * rng.uniform(*RANGES.character) / CAPITAL)
    west, north, east, south = font.getbbox(character, anchor="ls")
    start = (plate.width - west - east) / 2, (plate.height - north - south) / 2
    weight = int(rng.integers(0, 2))
    ImageDraw.Draw(ink).text(start, character, 255, font, anchor="ls", stroke_width=weight)
    angle = rng.uniform(-RANGES.turn, RANGES.turn)
    turned = [x.rotate(angle, Image.Resampling.BICUBIC, expand=True) for x in (plate, ink)]
    return turned[0], turned[1]


def _place(
    rng: np.random.Generator, plate: np.ndarray, owners: np.ndarray
) -> tuple[int, int] | None:
    """Find a corner (x, y) where a plate hides little of the others; None if there is none."""
    height, width = plate.shape
    counts = np.bincount(owners.ravel())
    for _ in range(_TRIES):
        x = int(rng.integers(-_EDGE, max(1, SIDE - width + _EDGE)))
        y = int(rng.integers(-_EDGE, max(1, SIDE - height + _EDGE)))
        covered = np.zeros_like(owners, bool)
        inside = plate[max(0, -y) : SIDE - y, max(0, -x) : SIDE - x]
        covered[max(0, y) : y + height, max(0, x) : x + width] = inside
        hidden = np.bincount(owners[covered], minlength=len(counts))
        if covered.any() and (hidden[1:] <= RANGES.hidden * counts[1:]).all():
            return x, y
    return None


def _moved(piece: Image.Image, place: tuple[int, int]) -> Image.Image:
    """Put a small "L" image onto an empty one of the scene's size."""
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(piece, place)
    return canvas
