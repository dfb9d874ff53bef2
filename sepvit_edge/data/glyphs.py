"""The built-in data set `glyphs`: printed characters in the wild, drawn when they are read.

62 classes: 0-9, A-Z, a-z. Nothing is downloaded. An image shows one character in the middle of a
line of text, with pieces of its neighbours, as a text detector would cut it out: in perspective,
on a cluttered ground, badly lit, blurred, noisy, compressed.

Case. O and o, S and s, X and x have the same shape, so only their size tells them apart: capital
height and base line are at the same place in every frame, to within `WILDNESS`. The surrounding
text is random: it shows the scale but not the label. Some characters are ambiguous in the font
itself, above all I and l without serifs (Computer Modern Sans, a third of the test split): guessing
between these two costs half a percent of accuracy.

Fonts. Those of the test split are in no other split, by family. They are matplotlib's, cut down to
these characters (`builtin/README.md`). Families under open licences (OFL-1.1) from the `fontpkg`
project widen training on request (`wide`); the test split stays the same. Fonts with old-style
figures are left out (0 looks like o in them), and so are fonts of symbols.

The same arguments give the same bytes, in any process and order; other versions of Pillow or numpy
may differ.
"""

from __future__ import annotations

import importlib
import io
import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ..errors import SepViTError, unknown_name
from .sample import SPLITS, Sample

LABELS = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)
SIZES = {"train": 40_000, "calibration": 512, "test": 3_100}
SIDE = 96  # pixels, of an image

_FONTS = Path(__file__).parent / "builtin" / "fonts"
# Their files, by family.
TRAIN_FONTS = {
    "DejaVu Sans": "DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSans-BoldOblique",
    "DejaVu Sans Mono": "DejaVuSansMono DejaVuSansMono-Bold DejaVuSansMono-Oblique "
    "DejaVuSansMono-BoldOblique",
    "DejaVu Serif": "DejaVuSerif DejaVuSerif-Bold DejaVuSerif-Italic DejaVuSerif-BoldItalic",
    "Computer Modern Roman": "cmr10 cmb10 cmti10",
}
TEST_FONTS = {
    "STIX General": "STIXGeneral STIXGeneralBol STIXGeneralItalic STIXGeneralBolIta",
    "Computer Modern Sans": "cmss10",
    "Computer Modern Typewriter": "cmtt10",
}
# Packages fontpkg_* of one family each, for training only.
WIDE_FONTS = (
    "alfa_slab_one arvo barlow crimson_text dm_serif_text ibm_plex_mono ibm_plex_serif poppins "
    "pt_sans pt_serif space_mono spectral titillium_web"
)


@dataclass(frozen=True)
class Wildness:
    """How hard the images are, all in one place.

    Each strength is the largest that is drawn, most of them uniformly from zero; each `p_` is the
    probability that the effect appears at all. Lengths without a unit are shares of the frame's
    side. Upper and lower case can be told apart as long as `scale` and `perspective` are small
    compared with the third by which a capital is larger than its small letter.
    """

    scale: float = 0.10  # of the text, relative, either way
    stretch: float = 0.18  # of its width, relative
    shift: float = 0.04
    rotation: float = 10.0  # degrees
    shear: float = 0.2
    perspective: float = 0.05  # how far a corner moves
    p_neighbours: float = 0.85
    p_weight: float = 0.4  # strokes thicker than the font's
    p_outline: float = 0.2
    contrast: tuple[float, float] = (0.15, 0.8)  # of luminance, text to ground
    clutter: float = 0.8  # of the ground, relative to the contrast
    p_occluder: float = 0.25
    occluder: float = 0.12  # its width
    p_light: float = 0.6
    light: float = 0.6  # how much darker the darkest corner or shadow is
    p_blur: float = 0.5
    blur: float = 1.8  # pixels, standard deviation
    p_motion: float = 0.25
    motion: int = 2  # times a motion of 5 pixels
    p_coarse: float = 0.35
    coarse: int = 28  # pixels, the lowest resolution it was seen at
    p_noise: float = 0.6
    noise: float = 24.0  # grey levels, standard deviation
    p_jpeg: float = 0.5
    jpeg: int = 12  # the lowest quality


WILDNESS = Wildness()

CAPITAL = 64  # pixels, height of H on the canvas, before the text is put into the frame
_FRAME = 140  # pixels, side of the frame on the canvas
_CANVAS = (288, 208)
_BASE_LINE = 126
_MIDDLE = (_CANVAS[0] / 2, _BASE_LINE - 0.42 * CAPITAL)  # of the frame, on the canvas
# Motion blur along a line of 5 pixels, four ways.
_MOTIONS = [
    ImageFilter.Kernel((5, 5), line.ravel().tolist())
    for line in (np.eye(5), np.eye(5)[::-1], np.eye(5)[[2] * 5], np.eye(5)[[2] * 5].T)
]
LUMINANCE = np.array([0.299, 0.587, 0.114])
_X, _Y = np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2)


class Glyphs:
    """Images of printed characters, in order 0-9, A-Z, a-z, over and over.

    Parameters
    ----------
    split : str
        ``"train"``, ``"calibration"`` or ``"test"``.
    size : int, optional
        Number of images; 40,000, 512 or 3,100 (50 per class) by default.
    seed : int
        Seed of the images, 0 .. 2**32 - 1.
    epoch : int
        Epoch of training, 0 .. 2**32 - 1; each has fresh images.
    wide : bool
        Train and calibrate on the fonts of `WIDE_FONTS` too.

    Raises
    ------
    SepViTError
        If there is no such split, a number is out of range, or a font is not installed.

    Examples
    --------
    >>> glyphs = Glyphs("test")
    >>> len(glyphs), glyphs[10].image.size, LABELS[glyphs[10].label]
    (3100, (96, 96), 'A')
    """

    def __init__(
        self, split: str, size: int | None = None, seed: int = 0, epoch: int = 0, wide: bool = False
    ) -> None:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        self._size = SIZES[split] if size is None else size
        # SeedSequence cuts numbers into words of 32 bits: longer ones could collide.
        if min(self._size, seed, epoch) < 0 or max(seed, epoch) >= 2**32:
            raise SepViTError("size, seed and epoch of glyphs must lie between 0 and 2**32 - 1")
        self._entropy = (SPLITS.index(split), seed, epoch)
        self._families = font_files(split, wide)
        self.name = f"glyphs/{split}"

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        """Draw one image, (96, 96) RGB."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, index {index} is out of range")
        rng = np.random.default_rng([*self._entropy, index])
        label = index % len(LABELS)
        # Families first, so that one with many weights is not seen more often.
        family = self._families[rng.integers(len(self._families))]
        font = open_font(family[rng.integers(len(family))])
        return Sample(_draw(rng, font, LABELS[label]), label, f"{self.name}/{index}")

    def label(self, index: int) -> int:
        """Return the class of an image, which is not drawn for it."""
        return index % len(LABELS)


@cache
def font_files(split: str, wide: bool = False) -> tuple[tuple[str, ...], ...]:
    """Return the paths of a split's fonts, by family; fonts that lack a character are left out.

    Parameters
    ----------
    split : str
        ``"train"``, ``"calibration"`` or ``"test"``.
    wide : bool
        Include the families of `WIDE_FONTS`, except in the test split.

    Raises
    ------
    SepViTError
        If a package of fonts is not installed.
    """
    listed = TEST_FONTS if split == "test" else TRAIN_FONTS
    families = [[str(_FONTS / f"{f}.ttf") for f in files.split()] for files in listed.values()]
    for family in WIDE_FONTS.split() if wide and split != "test" else ():
        try:
            root = importlib.import_module(f"fontpkg_{family}").ROOT
        except ImportError:
            raise SepViTError(
                f"fontpkg-{family} is not installed; pip install 'sepvit-edge[glyphs-wide]'"
            ) from None
        # Hairlines vanish at this size.
        files = sorted(str(path) for path in root.glob("files/*.ttf"))
        families.append([f for f in files if "Thin" not in f and "ExtraLight" not in f])
    return tuple(tuple(f for f in files if has_all_glyphs(open_font(f))) for files in families)


@cache
def open_font(path: str) -> ImageFont.FreeTypeFont:
    """Open a font at the size that makes its capitals `CAPITAL` pixels high."""
    if not Path(path).is_file():
        raise SepViTError(f"the font {path} is missing; install its package again")
    # The basic layout is in every build of Pillow, Raqm is not.
    font = ImageFont.truetype(path, 200, layout_engine=ImageFont.Layout.BASIC)
    height = -font.getbbox("H", anchor="ls")[1] or 140  # a font without an H is left out later
    return font.font_variant(size=200 * CAPITAL / height)


def has_all_glyphs(font: ImageFont.FreeTypeFont) -> bool:
    """Check that a font draws each of the 62 characters, and not as its "not defined" box."""
    # U+FFFF is not a character, so no font has it.
    undefined = bytes(font.getmask("\uffff"))
    return all(any(b) and b != undefined for b in (bytes(font.getmask(c)) for c in LABELS))


def _draw(rng: np.random.Generator, font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """Draw a character in its surroundings; effects follow the light: scene, lens, sensor, file.

    Returns
    -------
    PIL.Image.Image
        (96, 96) RGB.
    """
    w = WILDNESS
    ground, ink, rim = draw_colours(rng)
    contrast = abs(float((ink - ground) @ LUMINANCE))
    scene = to_image(ground + w.clutter * contrast * rng.random() * draw_texture(rng))
    inks = to_image(ink + 0.3 * contrast * draw_texture(rng))
    around, letters = _masks(rng, font, character)
    if around is not None:
        scene.paste(rim, mask=around)
    scene.paste(inks, mask=letters)
    if rng.random() < w.p_occluder:
        _occlude(rng, scene)
    if rng.random() < w.p_light:
        scene = to_image(np.asarray(scene) * _light(rng)[..., None])
    if rng.random() < w.p_blur:
        scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, w.blur)))
    if rng.random() < w.p_motion:
        kernel = _MOTIONS[rng.integers(len(_MOTIONS))]
        for _ in range(rng.integers(w.motion) + 1):
            scene = scene.filter(kernel)
    if rng.random() < w.p_coarse:
        side = int(rng.integers(w.coarse, SIDE))
        resampling = (Image.Resampling.NEAREST, Image.Resampling.BICUBIC)[rng.integers(2)]
        scene = scene.resize((side, side), Image.Resampling.BOX).resize((SIDE, SIDE), resampling)
    if rng.random() < w.p_noise:
        grain = rng.standard_normal((SIDE, SIDE, 3), dtype=np.float32)
        scene = to_image(np.asarray(scene) + rng.uniform(2, w.noise) * grain)
    if rng.random() < w.p_jpeg:
        file = io.BytesIO()
        scene.save(file, "JPEG", quality=int(rng.integers(w.jpeg, 90)))
        scene = Image.open(file).copy()
    return scene


def to_image(pixels: np.ndarray) -> Image.Image:
    """Make an image of float grey levels (H, W, 3), clipped to 0..255."""
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Draw the colours of background and ink, (3,) in grey levels, and of the letters' outline."""
    light = rng.uniform(0.05, 0.95)
    contrast = rng.uniform(*WILDNESS.contrast)
    # Lighter or darker than the background, where there is room for it.
    up = contrast < 1 - light and (contrast > light or rng.random() < 0.5)
    other = light + contrast if up else max(0.0, light - contrast)
    tints = rng.uniform(-90, 90, (2, 3))
    tints -= tints @ LUMINANCE[:, None]  # a tint changes no luminance
    ground, ink = 255 * np.array([[light], [other]]) + tints
    # The outline is on the far side of the background, so that it sets the letter off.
    rim = (ground + 0.7 * (ground - ink)).clip(0, 255).astype(int)
    return ground, ink, tuple(rim.tolist())


def draw_texture(rng: np.random.Generator) -> np.ndarray:
    """Draw the look of a surface, float32 (96, 96, 3), about -1..1."""
    angle, tint = rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1, 3).astype(np.float32)
    along = _X * np.float32(np.cos(angle)) + _Y * np.float32(np.sin(angle))
    across = _Y * np.float32(np.cos(angle)) - _X * np.float32(np.sin(angle))
    slope = along[..., None] * tint
    kind = rng.choice(["plain", "stripes", "tiles", "clutter", "noise"])
    if kind == "plain":
        return slope
    if kind in ("stripes", "tiles"):
        frequency = np.float32(rng.uniform(3, 30))
        wave = np.sin(along * frequency)
        if kind == "tiles":
            wave *= np.sin(across * frequency)
        return 0.5 * slope + (wave if rng.random() < 0.5 else np.sign(wave))[..., None] * tint[::-1]
    if kind == "clutter":
        image = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        pen = ImageDraw.Draw(image)
        for _ in range(rng.integers(3, 12)):
            shape = (pen.line, pen.ellipse, pen.rectangle)[rng.integers(3)]
            corner = rng.integers(-20, SIDE + 20, 2)
            points = np.stack([corner, corner + rng.integers(2, 60, 2)]).ravel().tolist()
            shape(points, fill=tuple(rng.integers(0, 256, 3).tolist()))
    else:  # clouds, grain or brushed metal: one scale in each direction
        rows, columns = 2 ** rng.integers(1, 7, 2)
        noise = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return 0.5 * slope + np.asarray(image, dtype=np.float32) / 127.5 - 1


def _masks(
    rng: np.random.Generator, font: ImageFont.FreeTypeFont, character: str
) -> tuple[Image.Image | None, Image.Image]:
    """Draw where the frame shows the outline or shadow of the text, if any, and where its ink."""
    w = WILDNESS
    left, _, right, _ = font.getbbox(character, anchor="ls")
    x = _MIDDLE[0] - (left + right) / 2
    text = [(x, character)]
    spacing = rng.uniform(0, 0.12) * CAPITAL
    before, after = (LABELS[i] for i in rng.integers(len(LABELS), size=2))
    if rng.random() < w.p_neighbours:
        text.append((x - font.getlength(before) - spacing, before))
    if rng.random() < w.p_neighbours:
        text.append((x + font.getlength(character) + spacing, after))
    weight = int(rng.integers(1, 3)) if rng.random() < w.p_weight else 0
    view = _view(rng)

    def mask(stroke: int, offset: np.ndarray) -> Image.Image:
        canvas = Image.new("L", _CANVAS)
        pen = ImageDraw.Draw(canvas)
        for x, piece in text:
            place = (x + offset[0], _BASE_LINE + offset[1])
            pen.text(place, piece, 255, font, anchor="ls", stroke_width=stroke)
        return canvas.transform((SIDE, SIDE), Image.Transform.QUAD, view, Image.Resampling.BICUBIC)

    rim = None
    if rng.random() < w.p_outline:
        rim = mask(weight + int(rng.integers(1, 5)), rng.integers(-3, 4, 2))
    return rim, mask(weight, np.zeros(2))


def _view(rng: np.random.Generator) -> list[float]:
    """Draw a point of view: the frame's corners on the canvas, as Pillow's QUAD takes them."""
    w = WILDNESS
    limits = [np.radians(w.rotation), w.shear, w.stretch, w.scale]
    angle, shear, stretch, scale = rng.uniform(-1, 1, 4) * limits
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[1 + stretch, shear], [0, 1]]) * (1 + scale)
    corners = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]]) @ (turn @ slant).T
    corners += rng.uniform(-1, 1, 2) * w.shift + rng.uniform(-1, 1, (4, 2)) * w.perspective
    return (corners * _FRAME + _MIDDLE).ravel().tolist()


def _occlude(rng: np.random.Generator, scene: Image.Image) -> None:
    """Put a bar or a spot in front of the text."""
    colour = tuple(rng.integers(0, 256, 3).tolist())
    width = rng.uniform(0.03, WILDNESS.occluder) * SIDE
    x, y = rng.uniform(0.25, 0.75, 2) * SIDE
    pen = ImageDraw.Draw(scene)
    if rng.random() < 0.5:
        angle = rng.uniform(0, np.pi)
        dx, dy = 2 * SIDE * np.cos(angle), 2 * SIDE * np.sin(angle)
        pen.line((x - dx, y - dy, x + dx, y + dy), fill=colour, width=int(width))
    else:
        pen.ellipse((x - width, y - width, x + width, y + width), fill=colour)


def _light(rng: np.random.Generator) -> np.ndarray:
    """Draw the light on each pixel, (96, 96): a shadow, its edge from hard to very soft."""
    angle = rng.uniform(0, 2 * np.pi)
    along = _X * np.float32(np.cos(angle)) + _Y * np.float32(np.sin(angle))
    edge = (along - np.float32(rng.uniform(-0.6, 0.6))) * np.float32(np.exp(rng.uniform(-1, 4)))
    return 1 - np.float32(rng.uniform(0.1, WILDNESS.light)) * (edge + 0.5).clip(0, 1)


def contact_sheet(data: Glyphs, columns: int = 12, rows: int = 8, side: int = 64) -> Image.Image:
    """Lay out the first images, row by row, `side` pixels large, with their labels below."""
    cell = (side + 6, side + 22)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(font_files("train")[1][0], 14)
    for place in range(min(columns * rows, len(data))):
        x, y = place % columns * cell[0], place // columns * cell[1]
        sheet.paste(data[place].image.resize((side, side)), (x + 3, y + 3))
        label = LABELS[place % len(LABELS)]
        pen.text((x + cell[0] / 2, y + side + 5), label, "black", font, "ma")
    return sheet


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description="Look at the built-in data set glyphs.")
    parser.add_argument("--contact-sheet", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which images to show")
    arguments = parser.parse_args()
    # A palette makes the file a third as large.
    sheet = contact_sheet(Glyphs(arguments.split)).quantize(256)
    sheet.save(arguments.contact_sheet, optimize=True)
