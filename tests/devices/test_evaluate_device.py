"""Accuracy on a device: its logits, image by image, beside those of this machine."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import Exporter, Runner, mini_digits

from sepvit_edge.errors import CheckFailed, SepViTError
from sepvit_edge.pipeline.parity import DeviceDistance, DeviceMeter, check_device
from sepvit_edge.profiling.connections.answers import read_floats, read_rows
from sepvit_edge.profiling.device_session import DeviceSession


def rows(start: int, values: np.ndarray) -> dict:
    data = base64.b64encode(values.astype("<f4").tobytes()).decode()
    return {"start": start, "shape": list(values.shape), "float32": data}


@pytest.fixture
def digits_package(exported: Exporter) -> Path:
    pytest.importorskip("openvino")
    return exported(mini_digits()).path


@pytest.fixture
def ten_digits(digits_package: Path, digits_checkpoint: Path) -> tuple:
    weights = ("--weights", digits_checkpoint)
    return (digits_package, *weights, "--data", "digits", "--images", 10)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sepvit-edge" / "evaluations"


def test_a_local_device_answers_as_this_machine_does(
    run_command: Runner, ten_digits: tuple, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceSession, "images_at_once", 6)  # the last piece is a smaller one
    arguments = (*ten_digits, "--device", "local", "--json")
    done = run_command("evaluate", *arguments)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    beside = found["this_machine"]
    assert beside["images"] == beside["identical"] == 10 and beside["sqnr_db"] == 200
    alone = json.loads(run_command("evaluate", *ten_digits, "--json").out)
    assert alone["this_machine"] is None
    assert found["accuracy"] == alone["accuracy"] and found["data_sha256"] == alone["data_sha256"]
    assert not list(cache.iterdir())  # nothing is kept of a run that ended


def test_a_broken_run_continues(
    run_command: Runner, ten_digits: tuple, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceSession, "images_at_once", 4)
    real, asked = DeviceSession.run_pixels, []

    def breaks(self: DeviceSession, pixels: np.ndarray) -> list[np.ndarray]:
        asked.append(len(pixels))
        if len(asked) == 2:
            raise SepViTError("the connection to board broke; repeat the command to continue")
        return real(self, pixels)

    monkeypatch.setattr(DeviceSession, "run_pixels", breaks)
    arguments = (*ten_digits, "--device", "local", "--json")
    broken = run_command("evaluate", *arguments)
    assert broken.status == 2 and "broke; repeat the command" in broken.err
    assert len(list(cache.iterdir())) == 1 or list(cache.glob("*.logits"))
    done = run_command("evaluate", *arguments)
    assert done.status == 0 and "4 images were continued" in done.err
    assert asked == [4, 4, 4, 2]
    assert json.loads(done.out)["this_machine"]["identical"] == 10


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--device", "iphone-15-pro"),
            "no computer reaches the app on iphone-15-pro, so it takes no images",
        ),
        (("--device", "no-such"), "unknown device 'no-such'"),
        (("--bootstrap",), "--bootstrap is for --device"),
        (("--device", "local", "--by-block"), "leave it out with --all and --by-block"),
    ],
)
def test_wrong_usage_is_one_sentence(
    run_command: Runner,
    digits_package: Path,
    arguments: tuple[str, ...],
    sentence: str,
    cache: Path,
) -> None:
    done = run_command("evaluate", digits_package, "--data", "digits", "--images", 4, *arguments)
    assert done.status == 2 and sentence in done.err, done.err


def test_what_a_device_sends_is_checked() -> None:
    logits = np.arange(12, dtype=np.float32).reshape(6, 2)
    parts = [rows(0, logits[:4]), rows(4, logits[4:])]
    assert np.array_equal(read_rows(parts, 6, 2), logits)
    cases: list[tuple[list[dict], str]] = [
        (parts[:1], "the outputs of 4 of 6 images"),
        (parts[::-1], "the outputs of 0 of 6 images"),
        ([{**parts[0], "shape": [4, 3]}], "sent no outputs"),
        ([{**parts[0], "float32": "!"}], "sent no outputs"),
        ([{**parts[0], "start": "0"}], "sent no outputs"),
        ([{"start": 0}], "sent no outputs"),
        ([rows(0, logits.reshape(4, 3))], "sent no outputs"),
    ]
    for sent, sentence in cases:
        with pytest.raises(SepViTError, match=sentence):
            read_rows(sent, 6, 2)
    with pytest.raises(CheckFailed, match="not finite"):
        read_rows([rows(0, logits * np.nan)], 6, 2)
    written = logits.astype("<f4").tobytes()
    assert np.array_equal(read_floats(written, 6, 2), logits)
    for images in (5, 7):
        with pytest.raises(SepViTError, match="the device sent 48 bytes, not the"):
            read_floats(written, images, 2)
    with pytest.raises(CheckFailed, match="not finite"):
        read_floats((logits * np.nan).astype("<f4").tobytes(), 6, 2)


def distance(here: np.ndarray, device: np.ndarray) -> DeviceDistance:
    """Measure it in two pieces."""
    meter = DeviceMeter()
    for piece in (slice(3), slice(3, None)):
        titles = [f"image {i}" for i in range(8)[piece]]
        meter.add(here[piece], device[piece], titles)
    return meter.distance()


def test_a_device_that_computes_something_else_fails() -> None:
    generator = np.random.default_rng(0)
    here = generator.standard_normal((8, 10)).astype(np.float32)
    near = (here * (1 + 1e-6 * generator.standard_normal(here.shape))).astype(np.float32)
    check_device(distance(here, near), "fp32")
    half = here + 1e-3 * generator.standard_normal(here.shape).astype(np.float32)
    with pytest.raises(CheckFailed, match=r"SQNR is (59|6\d)\.\d dB, at least 80 dB"):
        check_device(distance(here, half), "fp32")
    check_device(distance(here, half), "fp16")
    other = near.copy()
    other[5] = -other[5]
    found = distance(here, other)
    assert found.worst_image == "image 5" and found.worst_sqnr_db < 0
    assert found.top1_agreement == 7 / 8 and found.identical < 8
