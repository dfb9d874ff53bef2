"""Class maps, boxes and masks drawn onto their image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..contact_sheet import caption_font
from .answers import Answer

_GOLDEN = 0.618034  # of the colour circle, from one class to the next
_COVER = 0.55  # of the image's colour that a class covers
_EDGE = 4  # pixels around a caption


def colour_of(index: int) -> tuple[int, int, int]:
    """Return the colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_answer(image: Image.Image, one: Answer, labels: Sequence[str]) -> Image.Image:
    """Draw an answer onto a copy of its image.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright RGB, of the answer's size.
    one : Answer
        Class map, or boxes with or without masks.
    labels : sequence of str
        Class names.

    Returns
    -------
    PIL.Image.Image
        RGB. A class map covers the image in colours, and its classes are listed below; boxes have
        their class and score at the corner, and masks the colours of their classes.
    """
    return (
        _with_classes(image, one, labels) if one.found is None else _with_boxes(image, one, labels)
    )


def _with_classes(image: Image.Image, one: Answer, labels: Sequence[str]) -> Image.Image:
    assert one.classes is not None
    palette = np.array([colour_of(i) for i in range(len(labels))], np.float64)
    mixed = (1 - _COVER) * np.asarray(image) + _COVER * palette[one.classes]
    covered = Image.fromarray(mixed.round().astype(np.uint8))
    counts = np.bincount(one.classes.ravel(), minlength=len(labels))
    listed = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    font = caption_font()
    line = int(font.size * 1.3) + 2
    sheet = Image.new("RGB", (image.width, image.height + line * len(listed) + _EDGE), "white")
    sheet.paste(covered)
    pen = ImageDraw.Draw(sheet)
    for row, index in enumerate(listed):
        top = image.height + row * line + _EDGE
        pen.rectangle((_EDGE, top, _EDGE + font.size, top + font.size), fill=colour_of(index))
        share = counts[index] / one.classes.size
        pen.text((3 * _EDGE + font.size, top), f"{labels[index]} {share:.1%}", "black", font)
    return sheet


def _with_masks(image: Image.Image, one: Answer) -> Image.Image:
    """Cover the pixels of each object with the colour of its class, the best on top."""
    assert one.found is not None
    if one.found.masks is None:
        return image.copy()
    pixels = np.array(image)
    owner = np.full(one.size, -1)
    for mask, index in zip(reversed(one.found.masks), reversed(one.found.classes), strict=True):
        owner[mask.whole(one.size)] = index
    for index in np.unique(owner[owner >= 0]):
        colour = np.array(colour_of(int(index)), np.float64)
        inside = owner == index
        pixels[inside] = ((1 - _COVER) * pixels[inside] + _COVER * colour).round()
    return Image.fromarray(pixels)


def _with_boxes(image: Image.Image, one: Answer, labels: Sequence[str]) -> Image.Image:
    assert one.found is not None
    sheet, font = _with_masks(image, one), caption_font()
    pen = ImageDraw.Draw(sheet)
    thick = max(1, round(min(image.size) / 200))
    rows = list(zip(one.found.boxes, one.found.scores, one.found.classes, strict=True))
    for box, score, index in reversed(rows):  # the best on top
        left, top, right, bottom = (round(float(value)) for value in box)
        colour = colour_of(int(index))
        corners = left, top, max(left, right - 1), max(top, bottom - 1)
        pen.rectangle(corners, outline=colour, width=thick)
        text = f"{labels[int(index)]} {score:.0%}"
        place = left + thick, max(0, top - font.size - _EDGE)
        pen.rectangle(pen.textbbox(place, text, font), fill=colour)
        pen.text(place, text, "black", font)
    return sheet
