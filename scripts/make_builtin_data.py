"""Make sepvit_edge/data/builtin/ anew, from scikit-learn, matplotlib and fontTools.

The files are kept in the repository, so this is needed only to check them, or to change them:
`python scripts/make-builtin-data.py FOLDER`, then compare FOLDER with sepvit_edge/data/builtin.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from sepvit_edge.data.glyphs import LABELS, TEST_FONTS, TRAIN_FONTS

COLUMNS = 50  # of the picture that holds all digits
SOURCE = "http://www.ctan.org/tex-archive/fonts/cm/ps-type1/bakoma"
NAME_COPYRIGHT, NAME_FAMILY, NAME_FULL, NAME_POSTSCRIPT, NAME_DESCRIPTION = 0, 1, 4, 6, 10


def make_digits(folder: Path) -> list[Image.Image]:
    """Write all digits side by side, and their classes; return the pictures in order."""
    bunch = load_digits()
    # 0..16 levels of grey become 0..255.
    pixels = (bunch.images * 255 / 16).round().astype(np.uint8)
    count, height, width = pixels.shape
    rows = -(-count // COLUMNS)
    tiles = np.zeros((rows * COLUMNS, height, width), np.uint8)
    tiles[:count] = pixels
    sheet = tiles.reshape(rows, COLUMNS, height, width).transpose(0, 2, 1, 3)
    sheet = sheet.reshape(rows * height, COLUMNS * width)
    Image.fromarray(sheet).save(folder / "digits.png", optimize=True)
    classes = "".join(str(label) for label in bunch.target)
    lines = [classes[i : i + COLUMNS] for i in range(0, count, COLUMNS)]
    (folder / "digits.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [Image.fromarray(image) for image in pixels]


def make_golden(digits: list[Image.Image], folder: Path) -> None:
    """Write the images that every package carries: of different sizes and modes."""
    folder.mkdir()
    # The first two digits of the test split.
    order = np.random.default_rng(0).permutation(len(digits))[1397:]
    small, large = digits[order[0]], digits[order[1]]
    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    transparent = flower.crop((150, 40, 310, 130)).convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    images = [
        small,
        large.resize((37, 53), Image.Resampling.BICUBIC).convert("RGB"),
        china.crop((100, 60, 420, 300)),
        flower.crop((200, 0, 350, 401)),
        china.crop((0, 180, 640, 240)).convert("L"),
        transparent,
    ]
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png", optimize=True)


def make_fonts(folder: Path) -> None:
    """Cut matplotlib's fonts down to the 62 characters of glyphs; outlines and hints stay."""
    folder.mkdir()
    source = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in " ".join([*TRAIN_FONTS.values(), *TEST_FONTS.values()]).split():
        options = subset.Options()
        options.set(notdef_outline=True, hinting=True, glyph_names=False, recalc_timestamp=False)
        options.layout_features = []
        options.name_IDs = [NAME_COPYRIGHT]
        options.drop_tables += ["GSUB", "GPOS", "GDEF", "kern", "FFTM", "PfEd", "TeX", "gasp"]
        # As they are: recalculated, a flag in DejaVu Serif Italic would shift its characters.
        font = TTFont(source / f"{name}.ttf", recalcBBoxes=False, recalcTimestamp=False)
        cutter = subset.Subsetter(options)
        cutter.populate(text="".join(LABELS))
        cutter.subset(font)
        # Another name, as the licences ask of a changed font.
        title = f"SepViT-Edge {name.replace('STIX', 'Stx')}"
        table = font["name"]
        for number in (NAME_FAMILY, NAME_FULL):
            table.setName(title, number, 3, 1, 0x409)
        table.setName(title.replace(" ", "-"), NAME_POSTSCRIPT, 3, 1, 0x409)
        note = f"62 characters of {name}.ttf of matplotlib {matplotlib.__version__}"
        if name.startswith("cm"):
            note += f"; original fonts: {SOURCE}"
        table.setName(note, NAME_DESCRIPTION, 3, 1, 0x409)
        font.save(folder / f"{name}.ttf")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir()
    make_golden(make_digits(target), target / "golden")
    make_fonts(target / "fonts")
