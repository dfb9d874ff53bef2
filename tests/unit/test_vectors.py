"""The vectors that the apps are tested against are what Python computes, and Python passes them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, load_file

pytest.importorskip("onnxruntime")

from dense_vectors import listed, numbers
from make_vectors import VECTORS, apply_edits, make_vectors
from noise import noise

from sepvit_edge.backends.versions import check_range
from sepvit_edge.data.preprocess import _check_size, fit_image, preprocess, resized_size, to_rgb
from sepvit_edge.errors import SepViTError
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.variants import Preprocessing
from sepvit_edge.package.folder import Package
from sepvit_edge.package.manifest import GOLDEN
from sepvit_edge.package.postprocessing import DetectionRule, SegmentationRule
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.dense import kept
from sepvit_edge.postprocess.detection import Detections, anchors, detect
from sepvit_edge.postprocess.exponential import exp
from sepvit_edge.postprocess.segmentation import class_map
from sepvit_edge.profiling.document import read_profile
from sepvit_edge.profiling.runner.errors import Refusal
from sepvit_edge.profiling.runner.golden import MINIMUM_SQNR_DB
from sepvit_edge.profiling.runner.manifest import read_manifest
from sepvit_edge.scoring.detection import shared_boxes

# How each kind of refusal reads in Python.
KINDS = {
    "no-manifest": "is not a package: manifest.json is missing",
    "damaged-manifest": "is damaged: it is not a manifest",
    "newer-schema": "; update sepvit-edge",
    "older-schema": "which is no longer read; make the package again: python",
    "digest": "manifest.json was changed since it was exported",
    "task": "is for the task",
    "invalid": "is not valid",
    "path": "which leaves the folder",
    "missing": "is incomplete",
    "changed": "was changed since it was exported",
    "target": "unknown target",
    "runtime": "or later and older than",
}
DOCUMENT_KINDS = {
    "damaged-document": "is not a profile document",
    "newer-schema": "; update sepvit-edge",
    "invalid": "is not valid",
}
# The runner looks at what it needs, not at every field.
RUNNER_KINDS = (None, *KINDS.keys() - {"invalid", "path", "target", "runtime"})


def cases(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def named(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases(name)]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(VECTORS / "package", tmp_path / "package"))


def test_the_committed_vectors_are_what_the_program_makes(tmp_path: Path) -> None:
    make_vectors(tmp_path)
    advice = "run: python tests/make_vectors.py, and every app's tests"
    made = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    kept = {p.relative_to(VECTORS) for p in VECTORS.rglob("*") if p.is_file()}
    assert made == kept - {Path("README.md")}, advice
    for path in sorted(made):
        if path.suffix not in (".png", ".jpg"):  # compressors differ, and are not ours
            assert (tmp_path / path).read_bytes() == (VECTORS / path).read_bytes(), (path, advice)


def test_resizing() -> None:
    for case in cases("resize"):
        image = Image.fromarray(noise(case["width"], case["height"], case["seed"]))
        for to in ((case["to"][0], case["height"]), tuple(case["to"])):
            image = image.resize(to, Image.Resampling.BILINEAR)
        assert _sha256(np.asarray(image)) == case["sha256"], case


def test_preprocessing_and_its_refusals() -> None:
    for case in cases("preprocess"):
        size = (case["width"], case["height"])
        side, shorter = case["crop_size"], case["resize_shorter_side"]
        crop = next(c for c in (1.0, 0.9, 0.875) if Preprocessing(c).resize_side(side) == shorter)

        if "refused" in case:
            with pytest.raises(SepViTError) as refusal:
                _check_size(size, "the image")
                resized_size(size, shorter)
            assert str(refusal.value) == case["refused"]
        else:
            assert list(resized_size(size, shorter)) == case["resized"]
            assert (
                _sha256(preprocess(noise(*size, case["seed"]), Preprocessing(crop), side))
                == case["sha256"]
            ), case


@pytest.mark.parametrize("case", [pytest.param(c, id=c["file"]) for c in cases("images")])
def test_image_files(case: dict[str, Any]) -> None:
    path = VECTORS / "images" / case["file"]
    if "refused" in case:
        says = "image" if case["refused"] == "image" else "2 x 2 at least"
        with pytest.raises(SepViTError, match=says):
            preprocess(path, Preprocessing(), 32)
        return
    expected = load_file(VECTORS / "images" / "expected.safetensors")[case["file"]]
    with Image.open(path) as image:
        pixels = np.asarray(to_rgb(image))
    assert pixels.shape == (case["height"], case["width"], 3)
    assert np.abs(pixels.astype(int) - expected).max() <= case["tolerance"]


@pytest.mark.parametrize("case", named("packages"))
def test_damaged_packages(case: dict[str, Any], package: Path) -> None:
    apply_edits(package, case["edits"])
    kind = case.get("python", case["kind"])
    if kind is None:
        Package(package)
        return
    with pytest.raises(SepViTError, match=KINDS[kind]) as refusal:
        Package(package)
    check_words(case, str(refusal.value))


@pytest.mark.parametrize(
    "case", [case for case in named("packages") if case.values[0]["kind"] in RUNNER_KINDS]
)
def test_damaged_packages_on_a_device(case: dict[str, Any], package: Path) -> None:
    apply_edits(package, case["edits"])
    if case["kind"] is None:
        read_manifest(package)
        return
    with pytest.raises(Refusal, match=KINDS[case["kind"]]) as refusal:
        read_manifest(package)
    check_words(case, str(refusal.value))


def check_words(case: dict[str, Any], message: str) -> None:
    assert "\n" not in message
    assert all(word in message for word in case["mentions"]), message
    assert not any(word in message for word in case.get("omits", [])), message


@pytest.mark.parametrize("case", named("profiles"))
def test_profile_documents(case: dict[str, Any]) -> None:
    if case["kind"] is None:
        profile = read_profile(case["document"], "a vector")
        assert profile.schema_version.split(".")[0] == "2" and profile.complete
        return
    with pytest.raises(SepViTError, match=DOCUMENT_KINDS[case["kind"]]) as refusal:
        read_profile(case["document"], "a vector")
    check_words(case, str(refusal.value))


@pytest.mark.parametrize("case", named("sessions"))
def test_packages_that_cannot_run_here(case: dict[str, Any], package: Path) -> None:
    apply_edits(package, case["edits"])
    Package(package)
    with pytest.raises(SepViTError, match=KINDS[case["kind"]]) as refusal:
        open_package(package)
    check_words(case, str(refusal.value))


def test_runtime_versions() -> None:
    for case in cases("versions"):
        try:
            check_range("runtime", case["version"], case["minimum"], case["below"])
            fits = True
        except SepViTError:
            fits = False
        assert fits == case["python"], case


@pytest.mark.parametrize("case", named("safetensors"))
def test_safetensors(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    if case["tensors"] is None:
        with pytest.raises((SafetensorError, ValueError)):
            load(data)
        return
    tensors = load(data)
    assert tensors.keys() == case["tensors"].keys()
    for name, facts in case["tensors"].items():
        assert list(tensors[name].shape) == facts["shape"]
        assert tensors[name].reshape(-1).tolist() == facts["values"]


@pytest.mark.parametrize("case", named("self_check"))
def test_self_check(case: dict[str, Any], package: Path) -> None:
    """The rule of tests/vectors/README.md with Python's parts."""
    golden = load_file(package / GOLDEN)
    session = open_package(package, threads=1)
    if edit := case["edit"]:
        flat = golden[edit["tensor"]].reshape(-1)
        flat[edit["offset"] : edit["offset"] + len(edit["values"])] = edit["values"]
    pixels = np.stack(
        [
            preprocess(
                to_rgb(Image.fromarray(golden[f"image.{i}"])), session.package.preprocessing, 32
            )
            for i in range(len(golden["pixels"]))
        ]
    )
    apart = np.abs(pixels.astype(int) - golden["pixels"]).reshape(len(pixels), -1)
    logits = session.run_pixels(golden["pixels"])[0]
    off = np.abs(logits - golden["package_logits"])
    noise_db = sqnr_db(golden["package_logits"], logits)
    fails_at = "pixels" if apart.any() else "logits" if noise_db < MINIMUM_SQNR_DB["fp32"] else None
    assert (fails_at, fails_at is None) == (case["fails_at"], case["passed"])
    if fails_at == "pixels":
        assert int(apart.any(1).argmax()) == case["image"]
        assert int((apart[case["image"]] > 0).sum()) == case["different_values"]
        assert int(apart[case["image"]].max()) == case["max_difference"]
    elif "max_difference" in case:
        assert float(off.max()) == case["max_difference"]
        assert noise_db == pytest.approx(case["sqnr_db"], rel=1e-9)
    if fails_at == "logits":
        assert int(off.max(1).argmax()) == case["image"]
    if "reference_sqnr_db" in case:
        distance = sqnr_db(golden["reference_logits"], logits)
        assert distance == pytest.approx(case["reference_sqnr_db"], rel=1e-9)


@pytest.mark.parametrize("case", named("dense_self_check"))
def test_dense_self_check(case: dict[str, Any]) -> None:
    """The same for dense packages: outputs, then class maps or boxes."""
    session = open_package(VECTORS / case["package"], threads=1)
    manifest, golden = session.package.manifest, load_file(VECTORS / case["package"] / GOLDEN)
    if edit := case["edit"]:
        flat = golden[edit["tensor"]].reshape(-1)
        flat[edit["offset"] : edit["offset"] + len(edit["values"])] = edit["values"]
    images = [to_rgb(Image.fromarray(golden[f"image.{i}"])) for i in range(3)]
    assert manifest.model.input_size is not None
    fitted = [fit_image(i, manifest.input.mean, manifest.model.input_size) for i in images]
    apart = [
        int(np.abs(p.astype(int) - golden["pixels"][i]).max()) for i, (p, _) in enumerate(fitted)
    ]
    outputs = session.run_pixels(golden["pixels"])
    ratios = {
        facts.name: sqnr_db(golden[f"package.{facts.name}"], kept(output))
        for facts, output in zip(manifest.outputs, outputs, strict=True)
    }
    worst = min(ratios, key=lambda name: ratios[name])
    if isinstance(rule := manifest.postprocessing, SegmentationRule):
        maps = np.stack([class_map(logits, rule) for logits in outputs[0]])
        share = float((maps == golden["package.class_map"]).mean())
    else:
        assert rule is not None
        found = [
            detect(*each, rule, manifest.model.input_size, fit.content)
            for *each, (_, fit) in zip(*outputs, fitted, strict=True)
        ]
        wanted = [
            Detections(*(golden[f"package.{part}.{i}"] for part in ("boxes", "scores", "classes")))
            for i in range(3)
        ]
        pairs = list(zip(found, wanted, strict=True))
        shared = sum(shared_boxes(*pair) for pair in pairs)
        share = 2 * shared / sum(len(a) + len(b) for a, b in pairs)
    minimum = next(c for c in cases("minimum_sqnr") if c["precision"] == "fp32")
    fails_at = (
        "pixels"
        if any(apart)
        else "outputs"
        if ratios[worst] < minimum["minimum_sqnr_db"]
        else "answer"
        if share < minimum["minimum_agreement"]
        else None
    )
    assert (fails_at, fails_at is None) == (case["fails_at"], case["passed"])
    if fails_at == "pixels":
        assert apart[case["image"]] == case["max_difference"]
    elif "sqnr_db" in case:
        assert ratios[worst] == pytest.approx(case["sqnr_db"], rel=1e-9)
    if "output" in case:
        assert worst == case["output"]
    if "agreement" in case:
        assert share == pytest.approx(case["agreement"], rel=1e-9)


def test_the_tiny_package_and_its_golden_vectors() -> None:
    session = open_package(VECTORS / "package")
    golden = session.package.golden()
    assert np.array_equal(session.run_pixels(golden["pixels"])[0], golden["package_logits"])
    assert session.package.labels == ("red", "grün", "blue", "grey")
    assert len(set(golden["package_logits"].argmax(1))) > 1


def test_the_noise_is_the_documented_one() -> None:
    state, expected = 77, []
    for _ in range(5 * 4 * 3):
        state = (state * 1664525 + 1013904223) % 2**32
        expected.append(state >> 24)
    assert noise(5, 4, 77).reshape(-1).tolist() == expected


def test_fitting_an_image_into_an_input_and_the_way_back() -> None:
    for case in cases("fit"):
        image = noise(case["width"], case["height"], case["seed"])
        pixels, fit = fit_image(image, tuple(case["mean"]), tuple(case["input"][::-1]))
        assert list(fit.content[::-1]) == case["content"]
        assert _sha256(pixels) == case["sha256"], case
        back = fit.boxes_back(np.array([case["box"]], np.float32))
        assert back[0].tolist() == case["box_back"]
        classes = noise(*case["input"], case["seed"] + 7)[..., 0] // 16
        assert _sha256(fit.map_back(classes)) == case["map_back_sha256"], case


def test_exponentials() -> None:
    for case in cases("exponential"):
        assert exp(np.array([case["x"]])).tolist() == [case["exp"]]


def test_class_maps() -> None:
    for case in cases("class_maps"):
        shape = (case["classes"], case["height"], case["width"])
        logits = numbers(int(np.prod(shape)), case["seed"], 128, case["divisor"]).reshape(shape)
        if case["copied"]:
            logits[4], logits[9] = logits[2], np.nan
        found = class_map(logits, SegmentationRule()).astype(np.uint8)
        assert _sha256(found) == case["sha256"], case


@pytest.mark.parametrize("case", named("detections"))
def test_detections(case: dict[str, Any]) -> None:
    rule = DetectionRule(**case["rule"])
    size, content = tuple(case["input"][::-1]), tuple(case["content"][::-1])
    count, classes = len(anchors(rule, size)), case["classes"]
    logits = numbers(count * classes, case["seed"], case["middle"], 8).reshape(count, classes)
    deltas = numbers(count * 4, case["seed"] + 50, 128, 64).reshape(count, 4)
    found = detect(logits, deltas, rule, size, content)
    assert listed(found) == {key: case[key] for key in ("boxes", "scores", "labels")}


def test_detections_differ_in_kind() -> None:
    """None, some, and as many as are allowed; scores that are equal."""
    found = {case["name"]: case for case in cases("detections")}
    counts = {name: len(case["labels"]) for name, case in found.items()}
    assert counts["none"] == 0 < counts["few"] < counts["all overlaps"]
    assert len(set(found["all overlaps"]["scores"])) < counts["all overlaps"]


def _sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def test_every_kind_is_met() -> None:
    assert {c["kind"] for c in cases("packages") + cases("sessions")} == {None, *KINDS}
    assert {c["kind"] for c in cases("profiles")} == {None, *DOCUMENT_KINDS}
