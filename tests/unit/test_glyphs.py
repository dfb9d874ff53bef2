"""The built-in data set glyphs: the same everywhere, split by fonts, and legible."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from sepvit_edge.data import glyphs
from sepvit_edge.data.glyphs import LABELS, SIDE, SIZES, Glyphs, font_files, has_all_glyphs
from sepvit_edge.data.overlap import content_digests, image_digest
from sepvit_edge.errors import SepViTError

FACES = [Path(path) for split in ("train", "test") for fs in font_files(split) for path in fs]


def opened(face: Path) -> ImageFont.FreeTypeFont:
    return glyphs.open_font(str(face))


def pixels(data: Glyphs, index: int) -> np.ndarray:
    return np.asarray(data[index].image)


def test_another_process_in_another_order_draws_the_same_bytes():
    arguments = [("train", 3, 5), ("calibration", 0, 0), ("test", 0, 0)]
    script = (
        "from sepvit_edge.data.glyphs import Glyphs\n"
        "from sepvit_edge.data.overlap import image_digest\n"
        f"for split, seed, epoch in {arguments}:\n"
        "    data = Glyphs(split, seed=seed, epoch=epoch)\n"
        "    print(*[image_digest(data[i].image) for i in reversed(range(40))])\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for (split, seed, epoch), line in zip(arguments, run.stdout.splitlines(), strict=True):
        data = Glyphs(split, size=40, seed=seed, epoch=epoch)
        assert [image_digest(data[i].image) for i in range(40)] == line.split()[::-1]


def test_another_epoch_seed_or_split_draws_other_images_of_the_same_classes():
    sets = [
        Glyphs("train", 124),
        Glyphs("train", 124, epoch=1),
        Glyphs("train", 124, seed=1),
        Glyphs("calibration", 124),
        Glyphs("test", 124),
    ]
    digests = [content_digests(data) for data in sets]
    assert len(set().union(*digests)) == 5 * 124
    assert len({tuple(data[i].label for i in range(5)) for data in sets}) == 1


def test_no_font_of_the_test_split_is_in_another():
    assert not set(glyphs.TRAIN_FONTS) & set(glyphs.TEST_FONTS)
    test = {path for family in font_files("test") for path in family}
    for split in ("train", "calibration"):
        assert not test & {path for family in font_files(split) for path in family}
    assert [len(family) for family in font_files("train")] == [4, 4, 4, 3]
    assert [len(family) for family in font_files("test")] == [4, 1, 1]
    assert not any("stix" in f or "cmss" in f or "cmtt" in f for f in glyphs.WIDE_FONTS.split())


def test_wide_fonts_widen_training_only():
    pytest.importorskip("fontpkg_arvo")
    assert len(font_files("train", True)) == len(font_files("train")) + len(
        glyphs.WIDE_FONTS.split()
    )
    assert font_files("test", True) == font_files("test")
    assert all(font_files("train", True))


def test_every_62_images_hold_each_class_once():
    assert len(LABELS) == len(set(LABELS)) == 62
    assert {split: len(Glyphs(split)) for split in SIZES} == SIZES
    assert SIZES["test"] == 50 * 62
    data = Glyphs("test")
    for start in (0, 1234):
        assert sorted(data[i].label for i in range(start, start + 62)) == list(range(62))


def test_images_are_rgb_and_none_is_flat():
    data = Glyphs("test", 200)
    images = np.stack([pixels(data, i) for i in range(len(data))])
    assert images.shape == (200, SIDE, SIDE, 3)
    assert images.dtype == np.uint8
    assert images.std((1, 2)).max(1).min() > 2
    assert images.min() == 0
    assert images.max() == 255
    assert 80 < images.mean() < 176


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.stem)
def test_every_font_has_the_characters_and_tells_their_case(face):
    font = opened(face)
    assert has_all_glyphs(font)

    def height(character: str) -> int:
        return -font.getbbox(character, anchor="ls")[1]

    assert abs(height("H") - glyphs.CAPITAL) <= 2
    for small in "cosuvwxz":
        assert height(small) < 0.8 * height(small.upper())
    # Old-style figures would make a small o of 0.
    assert min(height(c) for c in "0123456789") > 0.9 * height("H")


@pytest.mark.parametrize("name", ["DejaVuSansDisplay", "STIXNonUni", "STIXSizOneSymReg"])
def test_a_font_without_letters_is_refused(name):
    matplotlib = pytest.importorskip("matplotlib")
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    assert not has_all_glyphs(opened(folder / f"{name}.ttf"))


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.stem)
def test_fonts_draw_what_matplotlibs_draw(face):
    matplotlib = pytest.importorskip("matplotlib")
    original = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / face.name
    if not original.is_file():
        pytest.skip(f"matplotlib {matplotlib.__version__} does not have {face.name}")
    ours, theirs = opened(face), opened(original)
    for character in LABELS:
        for stroke in (0, 3):
            drawn, expected = (f.getmask(character, stroke_width=stroke) for f in (ours, theirs))
            assert drawn.size == expected.size and bytes(drawn) == bytes(expected), character
        assert ours.getlength(character) == theirs.getlength(character)


def test_the_character_is_what_changes_the_middle_of_the_image():
    font = opened(FACES[0])
    for seed in range(30):
        images = [
            np.asarray(glyphs._draw(np.random.default_rng(seed), font, character), dtype=int)
            for character in "IM"
        ]
        middle = slice(SIDE // 4, -SIDE // 4)
        assert np.abs(images[0] - images[1])[middle, middle].mean() > 3


def test_loader_workers_draw_what_the_parent_draws():
    from torch.utils.data import DataLoader

    data = Glyphs("train", 24, epoch=2)
    assert (pixels(pickle.loads(pickle.dumps(data)), 7) == pixels(data, 7)).all()
    loader = DataLoader(data, batch_size=None, num_workers=2)
    drawn = list(loader)
    assert [sample.label for sample in drawn] == [data[i].label for i in range(24)]
    assert all((np.asarray(drawn[i].image) == pixels(data, i)).all() for i in range(24))


def test_wrong_use_is_one_sentence(monkeypatch):
    with pytest.raises(SepViTError, match="did you mean 'train'"):
        Glyphs("trian")
    for wrong in ({"seed": -1}, {"epoch": 2**32}, {"size": -5}):
        with pytest.raises(SepViTError, match="must lie between"):
            Glyphs("train", **wrong)
    monkeypatch.setattr(glyphs, "WIDE_FONTS", "of_nobody")
    font_files.cache_clear()
    with pytest.raises(SepViTError, match=r"pip install 'sepvit-edge\[glyphs-wide\]'"):
        Glyphs("train", wide=True)
    with pytest.raises(IndexError):
        Glyphs("test")[3100]
    assert len(list(Glyphs("test", 3))) == 3


def test_a_contact_sheet_holds_the_images_and_their_labels():
    sheet = glyphs.contact_sheet(Glyphs("test", 4), columns=2, rows=2, side=32)
    assert sheet.size == (2 * 38, 2 * 54)
    assert np.asarray(sheet)[36:54].min() < 64
