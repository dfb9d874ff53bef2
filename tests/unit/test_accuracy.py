"""The accuracy report against numbers that are counted by hand or in numpy, and its pictures."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sepvit_edge import contact_sheet
from sepvit_edge.accuracy import (
    AccuracyMeter,
    accuracy_report,
    draw_confusion,
    softmax,
    worst_images,
)
from sepvit_edge.contact_sheet import Tile, write_contact_sheet
from sepvit_edge.errors import CheckFailed, SepViTError
from sepvit_edge.files import check_output_file, replacing_file
from sepvit_edge.pipeline.outputs import Rows
from sepvit_edge.pipeline.parity import ParityMeter
from sepvit_edge.pipeline.worst import WorstImages

NAMES = ("glass", "metal", "plastic")


def one_hot(predicted: list[int], classes: int, height: float = 1.0) -> np.ndarray:
    return height * np.eye(classes, dtype=np.float32)[predicted]


def test_counts_are_those_of_the_images() -> None:
    #  3 of 4 glass, 0 of 2 metal, 1 of 1 plastic
    labels = [0, 0, 0, 0, 1, 1, 2]
    report = accuracy_report(one_hot([0, 0, 0, 2, 2, 2, 2], 3), labels, NAMES)
    assert report.images == 7
    assert report.top1 == pytest.approx(4 / 7)
    assert report.top5 is None
    assert report.confusion_matrix == ((3, 0, 1), (0, 0, 2), (0, 0, 1))
    assert [(one.images, one.right) for one in report.classes] == [(4, 3), (2, 0), (1, 1)]
    assert [str(one) for one in report.confusions()] == [
        "metal taken for plastic: 2",
        "glass taken for plastic: 1",
    ]


def test_a_class_without_images_has_no_accuracy() -> None:
    report = accuracy_report(one_hot([0, 0], 3), [0, 0], NAMES)
    assert [one.accuracy for one in report.classes] == [1.0, None, None]
    assert json.loads(json.dumps(report.to_json()))["classes"][1] == {
        "name": "metal",
        "images": 0,
        "right": 0,
        "accuracy": None,
    }


def test_top5_and_calibration_error_are_numpys() -> None:
    random = np.random.default_rng(0)
    logits = (random.normal(size=(400, 9)) * 3).astype(np.float32)
    labels = np.where(random.random(400) < 0.5, logits.argmax(1), random.integers(0, 9, 400))
    report = accuracy_report(logits, labels)
    five = np.argsort(-logits, axis=1)[:, :5]
    assert report.top5 == pytest.approx((five == labels[:, None]).any(1).mean())
    assert report.top1 == pytest.approx((logits.argmax(1) == labels).mean())
    assert report.calibration_error == pytest.approx(calibration_error(logits, labels), abs=1e-6)
    assert 0.1 < report.calibration_error < 0.5  # of a model that is far too sure


def calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Average of |probability - accuracy| over 15 bins of equal width."""
    sure, right = softmax(logits).max(1), logits.argmax(1) == labels
    bins = np.minimum((sure * 15).astype(int), 14)
    gaps = [
        abs(sure[bins == i].mean() - right[bins == i].mean()) * (bins == i).sum()
        for i in range(15)
        if (bins == i).any()
    ]
    return sum(gaps) / len(labels)


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    logits = np.array([[1000.0, 0.0], [np.log(0.94 / 0.06), 0.0]])
    # Wrong with 1.0 and right with 0.94: |0.97 - 0.5| in one bin, (1 + 0.06) / 2 = 0.53 in two.
    assert accuracy_report(logits, [1, 0]).calibration_error == pytest.approx(0.47)


def test_of_two_equal_logits_the_first_class_is_predicted() -> None:
    report = accuracy_report(np.ones((6, 7), np.float32), [0, 1, 2, 3, 4, 5])
    assert [one.right for one in report.classes] == [1, 0, 0, 0, 0, 0, 0]


def test_logits_between_0_and_1_are_no_probabilities() -> None:
    logits = np.full((4, 2), 0.25)
    logits[:, 0] = 0.75  # softmax: 0.622
    expected = 1 - 1 / (1 + np.exp(-0.5))
    assert accuracy_report(logits, [0] * 4).calibration_error == pytest.approx(expected)


@pytest.mark.parametrize(
    ("logits", "labels", "names", "sentence"),
    [
        (np.zeros((0, 3)), [], NAMES, "no images"),
        (np.zeros((2, 3)), [0, 3], NAMES, "label 3 names none of the model's 3 classes"),
        (np.zeros((2, 3)), [0, -1], NAMES, "label -1"),
        (np.zeros((2, 3)), [0], NAMES, "2 images need 2 labels"),
        (np.zeros((2, 3)), [0, 1], ("a", "b"), "3 classes, and 2 names"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, names, sentence) -> None:
    with pytest.raises(SepViTError, match=sentence):
        accuracy_report(logits, labels, names)


def test_logits_that_are_not_finite_are_a_failed_check() -> None:
    logits = np.zeros((3, 2))
    logits[1, 0] = np.nan
    with pytest.raises(CheckFailed, match="of 1 of 3 images"):
        accuracy_report(logits, [0, 0, 0])


def test_the_worst_image_gives_its_class_the_lowest_probability() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 9.0], [0.0, 2.0], [500.0, 0.0]])
    assert worst_images(logits, [0, 0, 0, 1]) == [3, 1, 2, 0]
    assert worst_images(logits, [0, 0, 0, 1], count=2) == [3, 1]


def test_what_is_kept_of_an_image_is_small() -> None:
    random, classes, images = np.random.default_rng(0), 1000, 16
    meters = AccuracyMeter([str(i) for i in range(classes)]), ParityMeter(), WorstImages()

    def add(pieces: int) -> int:
        for _ in range(pieces):
            logits = random.normal(size=(images, classes)).astype(np.float32)
            rows = Rows(list(range(images)), [3] * images, {"logits": logits, "reference": logits})
            meters[0].add(logits, [3] * images)
            meters[1].add(rows)
            meters[2].add(rows)
        return len(pickle.dumps(meters))

    before = add(2)  # the sheet of the worst is full
    # Measured: 52 bytes an image; its logits have 4,000.
    assert (add(20) - before) / (20 * images) < 400


ODD = ("$x_{", "line\nbreak", "\udcff", "玻璃", "<b>[red]", "a" * 300)


def test_odd_names_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = accuracy_report(one_hot([0, 1, 2, 3, 4, 0], 6), [0, 1, 2, 3, 4, 5], ODD)
    draw_confusion(report, tmp_path / "confusion.png", "package $a\n")
    width, height = Image.open(tmp_path / "confusion.png").size
    assert 400 < width < 1000 and 400 < height < 1000
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.png"]


def test_a_contact_sheet_holds_each_image_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "worst.png"
    shades = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    tiles = [Tile(np.full((20, 20, 3), shade, np.uint8), ODD, True) for shade in shades]
    write_contact_sheet(tiles, path, columns=2)
    sheet = Image.open(path)
    lines = len(ODD) * 15
    assert sheet.size == (2 * 168 + 8, 2 * (168 + lines) + 8)
    middles = [(88, 88), (256, 88), (88, 168 + lines + 88)]
    assert [sheet.getpixel(middle) for middle in middles] == shades
    caption = np.asarray(sheet)[170 : 170 + lines, 8:168]
    assert (caption == (0xB0, 0, 0x20)).all(2).any()  # the colour of a mark


def test_captions_have_letters_of_many_languages() -> None:
    pytest.importorskip("matplotlib")
    font = contact_sheet.caption_font()
    box = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != box for letter in "üéñßЖΩ")


def test_an_output_file_is_checked_before_the_work(tmp_path: Path) -> None:
    kept = tmp_path / "kept.png"
    kept.write_bytes(b"old")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    check_output_file(kept, "--chart", ".png")
    assert kept.read_bytes() == b"old"
    for path, reason in (
        (tmp_path / "folder.png", "is a folder"),
        (tmp_path / "missing" / "x.png", "does not exist"),
        (kept / "x.png", "does not exist"),
        (tmp_path / "fifo.png", "not a regular file"),
        (tmp_path / "a.jpg", "must end with .png"),
        (tmp_path / "a", "must end with .png"),
        (tmp_path / f"{'x' * 300}.png", "cannot be written: File name too long"),
        (Path("a\0b.png"), "cannot be written"),
    ):
        with pytest.raises(SepViTError, match=reason):
            check_output_file(path, "--chart", ".png")
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["fifo.png", "folder.png", "kept.png"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    (tmp_path / "link.png").symlink_to(path)
    with pytest.raises(RuntimeError), replacing_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing_file(tmp_path / "link.png") as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "link.png"]
