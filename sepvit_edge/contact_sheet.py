"""Contact sheets: many small images with captions as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .charts import picture_text
from .files import replacing_file

_SIDE = 160
_GAP = 8
_LINE = 15
_TEXT = 12
_COLUMNS = 6


@dataclass(frozen=True)
class Tile:
    """One image of a contact sheet.

    Attributes
    ----------
    pixels : numpy.ndarray
        uint8 (H, W, 3), as the model sees it.
    caption : tuple of str
        Lines below the image.
    marked : bool
        Whether the caption is red, for example for a wrong prediction.
    """

    pixels: np.ndarray
    caption: tuple[str, ...] = ()
    marked: bool = False


def write_contact_sheet(tiles: Sequence[Tile], path: Path, columns: int = _COLUMNS) -> None:
    """Write images with their captions as a PNG, row by row.

    Parameters
    ----------
    tiles : sequence of Tile
        At least one; each is scaled to 160 pixels.
    path : Path
        The file to write.
    columns : int
        Images in a row.
    """
    lines = max(len(tile.caption) for tile in tiles)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = _SIDE + _GAP, _SIDE + _GAP + lines * _LINE
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = caption_font()
    for i, tile in enumerate(tiles):
        left, top = _GAP + i % columns * width, _GAP + i // columns * height
        image = Image.fromarray(tile.pixels)
        # Small images show their pixels; large ones are averaged.
        how = Image.Resampling.NEAREST if image.width < _SIDE else Image.Resampling.BOX
        sheet.paste(image.resize((_SIDE, _SIDE), how), (left, top))
        colour = "#b00020" if tile.marked else "black"
        for line, text in enumerate(tile.caption):
            place = (left, top + _SIDE + 1 + line * _LINE)
            draw.text(place, _fitting(text, draw, font), fill=colour, font=font)
    with replacing_file(path) as partial:
        sheet.save(partial, format="PNG")


def caption_font() -> ImageFont.FreeTypeFont:
    """Return matplotlib's font if that is installed: Pillow's has no letter beyond ASCII."""
    matplotlib = find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        path = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(path, _TEXT)
    font = ImageFont.load_default(_TEXT)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _fitting(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont) -> str:
    """Shorten a line until it is as wide as an image."""
    line = picture_text(text, longest=40)
    while draw.textlength(line, font=font) > _SIDE:
        line = f"{line[:-2]}…"
    return line
