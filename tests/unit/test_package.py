"""Packages: what is in them, that damage is refused, and that nothing is left half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import HANGS, MINI, TESTS, jittered, random_pixels, run_process
from pydantic import ValidationError

import sepvit_edge
from sepvit_edge.errors import CheckFailed, SepViTError
from sepvit_edge.package.folder import Package, compare_packages, write_manifest
from sepvit_edge.package.manifest import SCHEMA_VERSION, Manifest, ModelFacts
from sepvit_edge.package.replacing import replacing
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.verify import verify_package

FILES = ("manifest.json", "model.xml", "model.bin", "labels.txt", "golden.safetensors")


@pytest.fixture
def copy(package_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package_path, tmp_path / "copy"))


def test_the_manifest_says_what_it_is(package_path: Path) -> None:
    manifest = Package(package_path).manifest
    assert (manifest.model.variant, manifest.model.name) == (MINI, "SepViT-Lite (1, 1, 1, 1)")
    assert manifest.input.shape == [1, 64, 64, 3] and manifest.input.dtype == "uint8"
    assert manifest.input.resize_shorter_side == 73  # floor(64 / 0.875)
    assert {f.path for f in manifest.files} == set(FILES) - {"manifest.json"}
    assert sum(g.macs_share for g in manifest.placement.placed) == pytest.approx(1)
    assert manifest.placement.macs_unattributed == 0
    assert manifest.parity is not None and manifest.parity.sqnr_db > 100
    text = (package_path / "manifest.json").read_text()
    # no trace of the machine or the day
    assert (
        os.uname().nodename not in text
        and str(Path.cwd()) not in text
        and "/" not in text.replace("digits/test", "")
    )


def test_golden_vectors_hold(package_path: Path) -> None:
    session = open_package(package_path)
    golden = session.package.golden()
    images = [golden[f"image.{i}"] for i in range(len(golden["pixels"]))]
    assert len({image.shape for image in images}) == len(images)
    # the machine that wrote them may have had another CPU: fp32 rounding, not bits
    np.testing.assert_allclose(
        session.run_pixels(golden["pixels"])[0], golden["package_logits"], atol=1e-4
    )
    rgb = [(i, image) for i, image in enumerate(images) if image.ndim == 3 and image.shape[2] == 3]
    for i, image in rgb:
        assert np.array_equal(session.preprocess(image)[0], golden["pixels"][i])


def test_images_of_any_size_and_kind(package_path: Path, tmp_path: Path) -> None:
    from PIL import Image

    session = open_package(package_path)
    pixels = random_pixels(3, 80)
    logits = session.run(pixels)
    assert logits.shape == (3, 10) and logits.dtype == np.float32
    paths = []
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    assert np.array_equal(session.run(paths), logits)
    assert np.array_equal(session.run(pixels[1]), logits[1:2])
    with pytest.raises(SepViTError, match="no image"):
        session.run([])


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    rng = np.random.default_rng(len(data))
    # at both ends and anywhere between
    for position in (0, len(data) - 1, *rng.integers(0, len(data), 20)):
        bit = 1 << int(rng.integers(8))
        data[position] ^= bit
        (copy / name).write_bytes(data)
        with pytest.raises(SepViTError) as refusal:
            Package(copy)
        assert "\n" not in str(refusal.value)
        data[position] ^= bit
    (copy / name).write_bytes(data)
    Package(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(SepViTError, match=name):
        Package(copy)


def rewrite(folder: Path, **changes: object) -> None:
    """Change a manifest and give it the right digest: what a careful attacker would do."""
    document = json.loads((folder / "manifest.json").read_text()) | changes
    manifest = Manifest.model_validate(document, strict=False)
    write_manifest(manifest, folder)


@pytest.mark.parametrize("path", ["../labels.txt", "/etc/passwd", "a/../../x", "..\\x"])
def test_a_path_that_leaves_the_folder_is_refused(copy: Path, path: str) -> None:
    (copy.parent / "labels.txt").write_text("outside")
    document = json.loads((copy / "manifest.json").read_text())
    document["files"][0]["path"] = path
    rewrite(copy, files=document["files"])
    with pytest.raises(SepViTError, match="leaves the folder"):
        Package(copy)


def test_a_link_that_leaves_the_folder_is_refused(copy: Path) -> None:
    shutil.move(copy / "labels.txt", copy.parent / "outside.txt")
    (copy / "labels.txt").symlink_to(copy.parent / "outside.txt")
    with pytest.raises(SepViTError, match="leaves the folder"):
        Package(copy)


def test_a_misspelt_key_cannot_be_written() -> None:
    facts = {"variant": "lite", "name": "Lite", "form": "rows", "num_classes": 10}
    facts |= {"image_size": 64, "parameters": 1, "macs": 1}
    ModelFacts.model_validate(facts)
    with pytest.raises(ValidationError, match="colour"):
        ModelFacts(**facts, colour=1)


def test_only_the_version_that_made_a_package_verifies_it(copy: Path) -> None:
    rewrite(copy, schema_version="2.9999")
    Package(copy)
    with pytest.raises(SepViTError, match="with the version that made it"):
        verify_package(copy)
    recipe = Package(copy).manifest.recipe | {"lowering": "tomorrow's"}
    rewrite(copy, schema_version=SCHEMA_VERSION, recipe=recipe)
    Package(copy)
    with pytest.raises(SepViTError, match="that made it: lowering is not a known key"):
        verify_package(copy)


def test_old_runtimes_are_refused(copy: Path) -> None:
    document = json.loads((copy / "manifest.json").read_text())
    newer = document["runtime"] | {"minimum": "2099.1", "below": "2099.2"}
    rewrite(copy, runtime=newer)
    with pytest.raises(SepViTError, match=r"2099.1 or later .* pip install"):
        open_package(copy)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SepViTError, match="there is no package"):
        Package(tmp_path / "none")
    with pytest.raises(SepViTError, match=r"manifest.json is missing"):
        Package(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(SepViTError, match="is damaged"):
        Package(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "package"
    for error in (OSError(errno.ENOSPC, "full"), KeyboardInterrupt()):
        with pytest.raises(type(error)), replacing(target, False) as folder:
            (folder / "manifest.json").write_text("half")
            raise error
        assert list(tmp_path.iterdir()) == []


def test_replacing_needs_force_and_keeps_what_is_no_package(tmp_path: Path) -> None:
    target = tmp_path / "package"
    for _ in range(2):
        with replacing(target, True) as folder:
            (folder / "manifest.json").write_text("whole")
    with pytest.raises(SepViTError, match="--force"), replacing(target, False):
        raise AssertionError("unreachable")
    assert [p.name for p in tmp_path.iterdir()] == ["package"]
    holiday = tmp_path / "holiday"
    holiday.mkdir()
    (holiday / "photo.jpg").write_text("precious")
    with (
        pytest.raises(SepViTError, match="is not a SepViT-Edge package"),
        replacing(holiday, True),
    ):
        raise AssertionError("unreachable")
    assert (holiday / "photo.jpg").exists()


def test_leftovers_of_killed_processes_are_cleared(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (tmp_path / f".package.partial-{done.pid}").mkdir()
    rescued = tmp_path / f".package.previous-{done.pid}"
    rescued.mkdir()
    (rescued / "manifest.json").write_text("the old one")
    mine = tmp_path / f".other.partial-{done.pid}"
    mine.mkdir()
    with pytest.raises(RuntimeError), replacing(tmp_path / "package", True):
        raise RuntimeError
    # killed between the two renames: the old package is back, the half one gone
    assert (tmp_path / "package" / "manifest.json").read_text() == "the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([mine.name, "package"])


_SLOW_EXPORT = """
import sys, time
sys.path.insert(0, {tests!r})
from helpers import MINI, jittered
import sepvit_edge
def step(text):
    print(text, flush=True)
    if text.startswith("running the golden"):
        time.sleep(60)
sepvit_edge.export_package(jittered(MINI), "openvino", output={output!r}, images=8, step=step)
"""


# What a process that was killed leaves is also in test_replacing.py.
@pytest.mark.parametrize(
    "sign", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_killed_export_leaves_no_half_package(tmp_path: Path, sign: signal.Signals) -> None:
    output = tmp_path / "lite"
    script = _SLOW_EXPORT.format(tests=str(TESTS), output=str(output))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background has SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("running the golden"):
            break
    time.sleep(0.2)
    process.send_signal(sign)
    process.wait(HANGS)
    assert not output.exists()
    leftovers = list(tmp_path.iterdir())
    assert len(leftovers) == (1 if sign == signal.SIGKILL else 0)
    with replacing(output, False) as folder:
        (folder / "manifest.json").write_text("the next run")
    assert [p.name for p in tmp_path.iterdir()] == ["lite"]


def test_two_exports_in_two_processes_are_identical(package_path: Path, tmp_path: Path) -> None:
    script = _SLOW_EXPORT.replace("time.sleep(60)", "pass")
    script = script.format(tests=str(TESTS), output=str(tmp_path / "again"))
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
    compare_packages(package_path, tmp_path / "again")
    (tmp_path / "again" / "labels.txt").write_text("x")
    with pytest.raises(CheckFailed, match=r"labels.txt differs"):
        compare_packages(package_path, tmp_path / "again")


def test_a_full_disk_is_one_sentence(tmp_path: Path, digits_checkpoint: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(mount).returncode:
        pytest.skip("a full disk needs root to mount a small tmpfs")
    try:
        done = run_process("export", "--weights", digits_checkpoint, "--output", disk / "lite")
        assert done.status == 2
        assert "the disk is full" in done.err and "Traceback" not in done.err
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_batches_are_filled_up(tmp_path: Path) -> None:
    model = jittered(MINI, image_size=32)
    one, three = (
        sepvit_edge.export_package(model, output=tmp_path / str(n), batch=n, images=4)
        for n in (1, 3)
    )
    assert three.manifest.input.shape == [3, 32, 32, 3]
    pixels = random_pixels(4, 32)
    first, second = (open_package(p.path).run_pixels(pixels)[0] for p in (one, three))
    np.testing.assert_allclose(first, second, atol=1e-4)
