"""`evaluate PACKAGE`: the accuracy of a package as it is given, and parity with its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import MINI, Exporter, Runner, jittered, random_pixels
from PIL import Image

from sepvit_edge.checkpoints.files import load_checkpoint, save_checkpoint
from sepvit_edge.cli import console
from sepvit_edge.data.digits import Digits
from sepvit_edge.errors import CheckFailed
from sepvit_edge.package.folder import Package
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline import comparison

pytest.importorskip("openvino")
IMAGES = 40


@pytest.fixture(scope="module")
def given(exported: Exporter, digits_checkpoint: Path) -> Package:
    """A package whose checkpoint is not built in."""
    return exported(load_checkpoint(digits_checkpoint))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits in a folder per class, the first three of them in wrong folders."""
    root = tmp_path_factory.mktemp("digits")
    digits = Digits("test")
    for i in range(IMAGES):
        label = (digits[i].label + (i < 3)) % 10
        (root / str(label)).mkdir(exist_ok=True)
        digits[i].image.save(root / str(label) / f"{i:02}.png")
    return root


def test_a_given_package_is_evaluated_without_its_checkpoint(
    run_command: Runner, given: Package, folder: Path, tmp_path: Path
) -> None:
    pictures = ("--worst", tmp_path / "worst.png", "--confusion", tmp_path / "confusion.png")
    done = run_command("evaluate", given.path, "--data", folder, "--json", *pictures)
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert document["parity"] is None and document["data"] == folder.name
    # The same by hand, through the session.
    files = sorted(folder.rglob("*.png"))
    predicted = open_package(given.path, 1).run(files).argmax(1)
    truth = np.array([int(file.parent.name) for file in files])
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (truth, predicted), 1)
    accuracy = document["accuracy"]
    assert accuracy["confusion_matrix"] == matrix.tolist()
    assert accuracy["top1"] == pytest.approx((predicted == truth).mean())
    assert 0.7 < accuracy["top1"] < 0.95 and accuracy["top5"] > 0.95
    sheet = Image.open(tmp_path / "worst.png")
    assert sheet.size == (6 * 168 + 8, 4 * (168 + 30) + 8)
    assert Image.open(tmp_path / "confusion.png").size > (300, 300)


def test_the_worst_images_come_first_on_the_sheet(
    run_command: Runner, given: Package, folder: Path, tmp_path: Path
) -> None:
    done = run_command("evaluate", given.path, "--data", folder, "--worst", tmp_path / "w.png")
    assert done.status == 0
    sheet = np.asarray(Image.open(tmp_path / "w.png").convert("RGB"))
    logits = open_package(given.path, 1).run(files := sorted(folder.rglob("*.png")))
    loss = [
        np.logaddexp.reduce(row) - row[int(file.parent.name)]
        for row, file in zip(logits, files, strict=True)
    ]
    session = open_package(given.path, 1)
    worst = Image.fromarray(session.preprocess(files[int(np.argmax(loss))])[0])
    expected = np.asarray(worst.resize((160, 160), Image.Resampling.NEAREST))
    assert (sheet[8:168, 8:168] == expected).all()
    caption = sheet[168:198, 8:168].astype(int)
    assert (caption[..., 0] - caption[..., 1]).max() > 100  # red: it is wrong


def test_the_table_names_the_worst_class_and_the_confusions(
    run_command: Runner, given: Package, folder: Path, digits_checkpoint: Path
) -> None:
    arguments = ("--data", folder, "--weights", digits_checkpoint)
    done = run_command("evaluate", given.path, *arguments)
    assert done.status == 0
    for text in ("top-1", "95 % interval", "top-5", "calibration error", " taken for ", "SQNR"):
        assert text in done.out
    both = json.loads(run_command("evaluate", given.path, *arguments, "--json").out)
    assert both["parity"]["sqnr_db"] > 80
    assert both["parity"]["top1_package"] == pytest.approx(both["accuracy"]["top1"], abs=1e-4)
    assert both["parity"]["data_sha256"] == both["data_sha256"]


def test_images_without_labels_have_no_accuracy(
    run_command: Runner, given: Package, tmp_path: Path
) -> None:
    for i, pixels in enumerate(random_pixels(2, 40)):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    done = run_command("evaluate", given.path, "--data", tmp_path)
    assert done.status == 2 and "one folder per class" in done.err


def test_a_package_of_digits_finds_its_images_by_itself(
    run_command: Runner, given: Package
) -> None:
    done = run_command("evaluate", given.path, "--images", 6, "--json")
    assert json.loads(done.out)["accuracy"]["images"] == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--worst", "missing/worst.png"], "does not exist"),
        (["--worst", "worst.jpg"], "must end with .png"),
        (["--worst", "a.png", "--confusion", "a.png"], "name one file"),
        (["--worst", "a.png", "--by-block"], "leave it out with --by-block"),
        (["--all"], "leave no-package out"),
        (["another"], "only --by-block takes several packages"),
        (["--calibration", "digits"], "--calibration is for --all and --by-block"),
        (["--weights", "a", "--weights", "b"], "one checkpoint"),
    ],
)
def test_wrong_options_are_refused_before_the_work(
    run_command: Runner, tmp_path: Path, monkeypatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command("evaluate", "no-package", *arguments)
    assert done.status == 2 and sentence in done.err
    assert not list(tmp_path.iterdir())


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch) -> None:
    clock = iter((0, 3, 11, 12, 22))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress("running x", 64) as advance:
        for _ in range(4):
            advance(16)
    assert capsys.readouterr().err == "running x: 32 of 64\nrunning x: 64 of 64\n"


def test_progress_tells_the_speed_and_the_time_left(capsys, monkeypatch) -> None:
    clock = iter((0, 20))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress("running x", 2100, "images", done=100) as advance:
        advance(400)
    said = "running x: 500 of 2100 (20 images/s, 0:01:20 left)\n"
    assert capsys.readouterr().err == said


def test_all_calibrates_on_typical_images_or_says_that_it_does_not(
    run_command: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(jittered(MINI, image_size=32), tmp_path / "own.safetensors")
    found: list[Any] = []

    def stopped(*_: object, calibration: object, **__: object) -> None:
        found.append(calibration)
        raise CheckFailed("far enough")

    monkeypatch.setattr(comparison, "compare_everything", stopped)
    arguments = ["--all", "--weights", tmp_path / "own.safetensors", "--data", "digits"]
    done = run_command("evaluate", *arguments)
    assert done.status == 1 and "give typical ones with --calibration" in done.err
    done = run_command("evaluate", *arguments, "--calibration", "glyphs")
    assert done.status == 1 and "typical" not in done.err
    assert found[0] is None and found[1].name == "glyphs/calibration"


def test_by_block_takes_the_scales_of_the_packages_own_images(
    run_command: Runner, digits_checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    checkpoint = ("--weights", digits_checkpoint)
    own = ("--calibration", folder)
    package = tmp_path / "int8"
    done = run_command(
        "export", "--precision", "int8", *checkpoint, *own, "--images", 5, "--output", package
    )
    assert done.status == 0, done.err
    for command in ("evaluate", "profile"):
        done = run_command(command, package, "--by-block", *checkpoint)
        assert done.status == 2 and "give its own images by --calibration" in done.err
        assert f"calibrated on {IMAGES} images of {folder.name}" in done.err
    done = run_command("evaluate", package, "--by-block", *checkpoint, *own, "--json")
    assert done.status == 0, done.err
    assert all(np.isfinite(part["sqnr_db"]) for part in json.loads(done.out))
