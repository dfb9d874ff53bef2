"""Image files as cameras and tools write them: taken right, refused by name, or counted."""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from sepvit_edge.data.find import DANGLING, MACOS, find_images, image_suffixes
from sepvit_edge.data.folders import ImageFolder, list_images
from sepvit_edge.data.overlap import refuse_overlap
from sepvit_edge.data.preprocess import load_image, preprocess, to_rgb
from sepvit_edge.data.sample import take_evenly
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.variants import Preprocessing

RULE = Preprocessing()
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
GREY = Image.linear_gradient("L")
TURN = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)  # orientation 6


def jpeg_with(path: Path, tiff: bytes) -> Path:
    """A photo whose EXIF block has these bytes."""
    out = io.BytesIO()
    Image.fromarray(PHOTO).save(out, "JPEG")
    block = b"Exif\0\0" + tiff
    length = struct.pack(">H", len(block) + 2)
    path.write_bytes(out.getvalue()[:2] + b"\xff\xe1" + length + block + out.getvalue()[2:])
    return path


def tiff_with(*entries: bytes, behind: bytes = b"") -> bytes:
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(entries) + b"\0" * 4 + behind


BEHIND = 8 + 2 + 24 + 4  # where the bytes behind two entries stand


@pytest.mark.parametrize(
    "tiff",
    [
        tiff_with(TURN),
        tiff_with(TURN, struct.pack("<HHIi", 0x101, 9, 1, -5)),
        tiff_with(
            TURN, struct.pack("<HHII", 0x11A, 10, 1, BEHIND), behind=struct.pack("<ii", -1, 0)
        ),
        tiff_with(TURN, struct.pack("<HHII", 0x110, 12, 1, BEHIND), behind=struct.pack("<d", 1.5)),
        tiff_with(TURN, struct.pack("<HHII", 0x10F, 2, 10**6, 10**6)),
    ],
    ids=["sound", "negative", "rational", "double for text", "beyond the end"],
)
def test_a_readable_orientation_is_applied_whatever_else_exif_holds(
    tmp_path: Path, tiff: bytes
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        turned = to_rgb(load_image(jpeg_with(tmp_path / "a.jpg", tiff)))
    plain = to_rgb(load_image(jpeg_with(tmp_path / "b.jpg", b"")))
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(plain), -1))
    assert np.array_equal(np.asarray(to_rgb(turned)), np.asarray(turned))  # and only once


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0xxxx", b"xxxx", b"II*\0", b"\0" * 64, tiff_with(TURN)[:-8]],
    ids=["no tiff", "garbage", "cut", "zeros", "cut entry"],
)
def test_an_image_with_broken_exif_is_taken_as_it_is(
    tmp_path: Path, suffix: str, exif: bytes
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PHOTO).save(path, exif=exif)
    Image.fromarray(PHOTO).save(tmp_path / f"b{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = np.asarray(to_rgb(load_image(path)))
    plain = np.asarray(to_rgb(load_image(tmp_path / f"b{suffix}")))
    turned = np.rot90(plain, -1)
    assert np.array_equal(found, plain) or (exif[:2] == b"II" and np.array_equal(found, turned))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_images_without_a_stated_range_are_refused_by_name(
    tmp_path: Path, kind: type[np.generic]
) -> None:
    path = tmp_path / "scan.tif"
    Image.fromarray(np.asarray(GREY).astype(kind)).save(path)
    with pytest.raises(SepViTError, match=r"scan\.tif is a .* image, which has no stated range"):
        preprocess(path, RULE, 32)
    with pytest.raises(SepViTError, match=r"scan\.tif"):
        preprocess(load_image(path), RULE, 32)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_keep_their_high_byte(tmp_path: Path, name: str) -> None:
    deep = np.asarray(GREY).astype(np.uint16) << 8 | 0x7F
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5 256 256 65535\n" + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(tmp_path / name)
    assert np.array_equal(np.asarray(to_rgb(load_image(tmp_path / name)))[..., 1], GREY)


def test_every_refusal_of_an_image_names_it(tmp_path: Path) -> None:
    path = tmp_path / "odd.png"
    Image.new("RGB", (2, 8000)).save(path)
    with pytest.raises(SepViTError, match=r"odd\.png of 2 x 8000 pixels is too narrow"):
        preprocess(load_image(path), RULE, 224)
    odd = Image.new("La", (8, 8))  # premultiplied grey, which Pillow does not convert
    odd.filename = "grey.tif"  # type: ignore[attr-defined]
    with pytest.raises(SepViTError, match=r"grey\.tif cannot be converted to RGB"):
        preprocess(odd, RULE, 32)


def test_what_pillow_reads_is_taken_and_the_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "zero"
    folder.mkdir()
    GREY.save(folder / "a.jpg")
    taken = ["a.jpg", "b.jfif", "c.jpe", "d.JPEG", "e.pgm"]
    for name in taken[1:4]:
        (folder / name).write_bytes((folder / "a.jpg").read_bytes())
    GREY.save(folder / "e.pgm")
    if features.check("avif"):
        GREY.save(folder / "f.avif")
        taken.append("f.avif")
    for name in ("g.heic", "h.HEIC", "noext", "._a.jpg", "Thumbs.db", ".DS_Store", "clip.mpg"):
        (folder / name).write_bytes(b"x")
    (folder / "gone.png").symlink_to("nowhere.png")
    found = find_images(folder)
    assert [path.name for path in found.images] == taken
    assert found.left_out == {".heic": 2, "without a suffix": 1, MACOS: 1, ".mpg": 1, DANGLING: 1}
    assert list_images([folder]) == found.images
    data = ImageFolder(tmp_path, ("zero", "one"))
    assert len(data) == len(taken) and data.left_out == dict(sorted(found.left_out.items()))
    said = [r.getMessage() for r in caplog.records if r.name.startswith("sepvit_edge")]
    (sentence,) = {sentence.split(": ", 1)[1] for sentence in said}
    assert sentence.startswith("6 files left out (") and "2 .heic" in sentence
    assert "1 dangling link," in sentence and "1 without a suffix" in sentence
    assert take_evenly(data, 1).left_out[DANGLING] == 1


def test_suffixes_are_those_of_decoders() -> None:
    assert {".jpg", ".jfif", ".png", ".webp", ".tiff", ".ppm", ".jp2"} <= image_suffixes()
    assert not {".pdf", ".eps", ".h5", ".mpg", ".txt", ".db"} & image_suffixes()


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    for name in ("data/zero/a.png", "elsewhere/b.png", "elsewhere/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        GREY.save(tmp_path / name)
    zero = tmp_path / "data" / "zero"
    (zero / "more").symlink_to(tmp_path / "elsewhere")
    (zero / "again").symlink_to(tmp_path / "elsewhere")  # the same images once more
    (zero / "up").symlink_to(tmp_path / "data")
    (zero / "self").symlink_to("self")
    (tmp_path / "data" / "one").symlink_to(tmp_path / "elsewhere")
    data = ImageFolder(tmp_path / "data", ("zero", "one"))
    names = [(Path(data[i].name).name, data[i].label) for i in range(len(data))]
    below_one = [("b.png", 1), ("c.png", 1)]
    assert names[:2] == below_one and len(names) == len(set(names)) == 5
    assert {name for name, label in names if label == 0} == {"a.png", "b.png", "c.png"}


def test_files_beside_class_folders_are_counted(tmp_path: Path) -> None:
    for name in ("zero", "one"):
        (tmp_path / name).mkdir()
        GREY.save(tmp_path / name / "a.png")
    GREY.save(tmp_path / "stray.png")
    (tmp_path / "two").symlink_to("nowhere")
    data = ImageFolder(tmp_path, ("zero", "one"))
    assert data.left_out == {DANGLING: 1, "loose images": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_no_silence(tmp_path: Path) -> None:
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero").chmod(0)
    with pytest.raises(SepViTError, match="cannot be read"):
        ImageFolder(tmp_path, ("zero",))


def test_an_overlap_is_looked_for_in_what_is_taken(tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        for i in range(20):
            Image.new("L", (4, 4), i if side == "a" else 100 + i).save(tmp_path / side / f"{i}.png")
    measured, typical = (take_evenly(ImageFolder(tmp_path / side), 4) for side in ("a", "b"))
    used = {typical[i].name for i in range(4)}
    for path in (tmp_path / "b").iterdir():
        if str(path) not in used:
            path.write_bytes(b"damaged")
    refuse_overlap(measured, typical, "calibration")
