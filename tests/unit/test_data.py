"""From an image file to the pixels of a package, and the data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sepvit_edge.data.choose import open_dataset
from sepvit_edge.data.digits import Digits
from sepvit_edge.data.folders import ImageFolder, list_images
from sepvit_edge.data.overlap import refuse_overlap
from sepvit_edge.data.preprocess import MAX_PIXELS, load_image, preprocess, resized_size
from sepvit_edge.data.sample import SPLITS
from sepvit_edge.errors import CheckFailed, SepViTError
from sepvit_edge.model.variants import Preprocessing

RULE = Preprocessing()
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@given(st.integers(2, 5000), st.integers(2, 5000), st.integers(32, 512))
def test_resizing_keeps_the_shorter_side_and_the_proportion(w: int, h: int, side: int) -> None:
    if max(w, h) * side // min(w, h) * side > MAX_PIXELS:
        with pytest.raises(SepViTError, match="too narrow"):
            resized_size((w, h), side)
        return
    width, height = resized_size((w, h), side)
    assert min(width, height) == side
    # rounded down to whole pixels
    assert 0 <= max(w, h) * side / min(w, h) - max(width, height) < 1


def test_the_rule_is_pillows_own_resize_then_the_centre() -> None:
    resized = Image.fromarray(PHOTO).resize((384, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[16:240, 80:304]
    assert np.array_equal(preprocess(PHOTO, RULE, 224), expected)


def test_imagenets_rule_at_224_resizes_to_256() -> None:
    assert RULE.resize_side(224) == 256
    assert Preprocessing(crop=1.0).resize_side(160) == 160
    # 0.9 is not exact in binary; 288 must not become 287
    assert Preprocessing(crop=0.8).resize_side(224) == 280


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(PHOTO)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright
    if orientation in undo:
        stored = upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(
        preprocess(tmp_path / "turned.png", RULE, 32), preprocess(PHOTO, RULE, 32)
    )


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    rgb = Image.fromarray(PHOTO)
    for mode in ("1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr"):
        pixels = preprocess(rgb.convert(mode), RULE, 32)
        assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    grey = rgb.convert("L")
    assert np.array_equal(preprocess(grey, RULE, 32), preprocess(grey.convert("RGB"), RULE, 32))
    # 16-bit grey keeps its high byte
    deep = np.asarray(grey).astype(np.uint16) << 8 | 0x7F
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(preprocess(tmp_path / "deep.png", RULE, 32), preprocess(grey, RULE, 32))
    # transparency is ignored, as the authors' loader does
    clear = rgb.convert("RGBA")
    clear.putalpha(0)
    assert np.array_equal(preprocess(clear, RULE, 32), preprocess(rgb, RULE, 32))
    with pytest.raises(SepViTError, match="floating-point"):
        preprocess(Image.fromarray(PHOTO[..., 0].astype(np.float32)), RULE, 32)


def test_bad_pixels_are_refused() -> None:
    for wrong in (PHOTO.astype(np.float32), PHOTO[..., 0], PHOTO[..., :2]):
        with pytest.raises(SepViTError, match="uint8"):
            preprocess(wrong, RULE, 32)
    with pytest.raises(SepViTError, match="2 x 2 at least"):
        preprocess(PHOTO[:1, :1], RULE, 32)
    with pytest.raises(SepViTError, match="too narrow"):
        preprocess(np.zeros((2, 8000, 3), np.uint8), RULE, 224)


def damaged(folder: Path, kind: str) -> Path:
    path = folder / "image.png"
    Image.fromarray(PHOTO).save(path)
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "1x1":
        Image.new("RGB", (1, 1)).save(path)
    elif kind == "huge":
        Image.new("1", (20_000, 20_000)).save(path)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no image"),
        ("truncated", "is a damaged image"),
        ("text", "not an image that Pillow can read"),
        ("empty", "not an image that Pillow can read"),
        ("1x1", "1 x 1 pixels"),
        ("huge", "megapixels"),
        ("folder", "is a folder"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(SepViTError, match=message) as refusal:
        load_image(damaged(tmp_path, kind))
    assert "\n" not in str(refusal.value)


def test_digits_are_split_without_overlap() -> None:
    splits = {split: Digits(split) for split in SPLITS}
    assert {name: len(data) for name, data in splits.items()} == {
        "train": 1197,
        "calibration": 200,
        "test": 400,
    }
    for first, second in (("train", "test"), ("train", "calibration"), ("calibration", "test")):
        refuse_overlap(splits[first], splits[second], second)
    assert sorted({splits["test"][i].label for i in range(400)}) == list(range(10))


def test_digits_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    bunch = datasets.load_digits()
    expected = (bunch.images * 255 / 16).round().astype(np.uint8)
    splits = [Digits(split) for split in SPLITS]
    samples = [data[i] for data in splits for i in range(len(data))]
    assert len(samples) == len(expected)
    for sample in samples:
        number = int(sample.name.rpartition("/")[2])
        assert np.array_equal(np.asarray(sample.image), expected[number])
        assert sample.label == bunch.target[number]


def make_tree(root: Path, classes: list[str], per_class: int = 2) -> Path:
    rng = np.random.default_rng(1)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_a_flat_folder_has_no_labels_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    make_tree(tmp_path, ["flat"])
    assert ImageFolder(tmp_path / "flat", ("a",))[0].label is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(SepViTError, match="there is no image"):
        ImageFolder(tmp_path / "empty", ("a",))
    with pytest.raises(SepViTError, match="there is no image"):
        list_images([tmp_path / "empty"])
    with pytest.raises(SepViTError, match="there is no folder"):
        open_dataset(tmp_path / "none", ("a",))
    with pytest.raises(SepViTError, match="did you mean 'digits'"):
        open_dataset("digit", ("a",))


def test_digits_are_refused_for_other_classes() -> None:
    with pytest.raises(SepViTError, match="not the digits"):
        open_dataset("digits", tuple("abcdefghij"))


def test_an_overlap_is_found_whatever_the_name(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "a", ["x"])
    copy = tmp_path / "b" / "y"
    copy.mkdir(parents=True)
    (copy / "renamed.png").write_bytes((root / "x" / "1.png").read_bytes())
    with pytest.raises(CheckFailed, match="1 images of"):
        refuse_overlap(ImageFolder(root, ("x",)), ImageFolder(tmp_path / "b", ("y",)), "training")
