"""The web app: built, opened in Chromium, and held against Python's answers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HANGS, REPOSITORY, TESTS, dense_model
from PIL import Image

WEB = REPOSITORY / "apps" / "web"
IMAGES = TESTS / "vectors" / "images"
RECIPE = "onnxruntime-fp32"


def _missing() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    if not (WEB / "node_modules").is_dir():
        return "run npm ci in apps/web first"
    if shutil.which(os.environ.get("CHROMIUM", "chromium")) is None:
        return "chromium is not installed"
    return None


pytestmark = pytest.mark.skipif(_missing() is not None, reason=str(_missing()))


def _node(*command: object, **variables: object) -> str:
    done = subprocess.run(
        ["npx", "--no-install", *map(str, command)],
        cwd=WEB,
        env=os.environ | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    return output


def _photos(folder: Path) -> Iterator[tuple[str, Path]]:
    """Real photos, a digit, and every image file of the vectors."""
    from sepvit_edge.data.digits import Digits
    from sepvit_edge.pipeline.golden import golden_images

    folder.mkdir()
    for number, image in enumerate(golden_images()[2:4]):
        path = folder / f"photo-{number}.jpg"
        image.save(path, quality=95)
        yield path.name, path
    large = folder / "12-megapixels.jpg"
    image.resize((4000, 3000), Image.Resampling.BICUBIC).save(large, quality=90)
    yield large.name, large
    digits = Digits("test")
    seven = next(s.image for s in (digits[i] for i in range(len(digits))) if s.label == 7)
    path = folder / "seven.png"
    seven.resize((400, 400), Image.Resampling.BICUBIC).save(path)
    yield path.name, path
    for case in json.loads((IMAGES.parent / "images.json").read_text(encoding="utf-8")):
        if "refused" not in case:
            yield case["file"], IMAGES / case["file"]


def _dense(folder: Path, photo: Path) -> dict[str, Any]:
    """Export small packages for segmentation and detection; return Python's answers to a photo."""
    import sepvit_edge
    from sepvit_edge.config.recipe import load_recipe
    from sepvit_edge.data.preprocess import load_image
    from sepvit_edge.pipeline.answers import answer, fitted

    recipe, answers = load_recipe(RECIPE), {}
    for head in ("semantic-fpn", "retinanet"):
        model = dense_model(head, (64, 96))
        path = folder / model.config.task
        session = sepvit_edge.open_package(
            sepvit_edge.export_package(model, output=path, recipe=recipe, images=2).path
        )
        image, labels = load_image(photo), session.package.labels
        found = answer(session, image)
        if found.classes is not None:
            counts = np.bincount(found.classes.ravel(), minlength=len(labels))
            order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
            rows = [(labels[i], counts[i] / found.classes.size) for i in order]
        else:
            assert found.found is not None and len(found.found) > 2
            pairs = zip(found.found.classes, found.found.scores, strict=True)
            rows = [(labels[i], float(score)) for i, score in pairs]
        pixels, _ = fitted(session.package, image)
        answers[model.config.task] = {
            "photo": str(photo),
            "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "rows": [{"label": label, "share": share} for label, share in rows],
        }
    return answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built page with a package in it, photos, and what Python says about them."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cryptography")
    import sepvit_edge
    from sepvit_edge.checkpoints.builtin import builtin_checkpoints
    from sepvit_edge.config.recipe import load_recipe
    from sepvit_edge.pipeline.apps import bundle_packages

    folder = tmp_path_factory.mktemp("web")
    public = folder / "public"
    shutil.copytree(WEB / "public", public, ignore=shutil.ignore_patterns("packages"))
    package = folder / "lite-digits-fp32"
    model = sepvit_edge.load_checkpoint(builtin_checkpoints()["lite-digits"], image_size=64)
    sepvit_edge.export_package(model, output=package, recipe=load_recipe(RECIPE), images=8)
    bundle_packages([package], "web", project=folder)
    session = sepvit_edge.open_package(package)
    labels = session.package.labels

    photos: dict[str, Any] = {}
    for name, path in _photos(folder / "photos"):
        pixels = session.preprocess(path)
        logits = session.run_pixels(pixels)[0][0].astype(np.float64)
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities, kind="stable")[:3]
        photos[name] = {
            "path": str(path),
            "classes": [{"label": labels[i], "probability": probabilities[i]} for i in best],
            "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        }
    expected = {"photos": photos, "dense": _dense(folder / "dense", folder / "photos/photo-0.jpg")}
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")
    _node("vite", "build", "--outDir", folder / "dist", PUBLIC_DIR=public)
    _build_signed(folder, package)
    return folder


def _build_signed(folder: Path, package: Path) -> None:
    """Build the page at signed/ once more, with the signed package and the key that it asks for."""
    from signature_vectors import private_key, public_pem

    from sepvit_edge.package.signature import SigningKey, sign_folder
    from sepvit_edge.pipeline.apps import bundle_packages

    project = folder / "signed"
    signed = shutil.copytree(package, project / package.name)
    sign_folder(signed, SigningKey(private_key(1)))
    key = project / "key.pub"
    key.write_text(public_pem(1), encoding="ascii")
    bundle_packages([signed], "web", project, trust=key)
    _node("vite", "build", "--outDir", folder / "dist/signed", PUBLIC_DIR=project / "public")


def test_the_page_gives_pythons_answers(folder: Path) -> None:
    from sepvit_edge.profiling.document import Profile

    output = _node("playwright", "test", E2E_FOLDER=folder)
    print(output)  # the figures, with -s
    documents = sorted(folder.glob("profile-*.json"))
    assert len(documents) >= 2
    for document in documents:
        profile = Profile.model_validate_json(document.read_text(encoding="utf-8"))
        assert profile.producer.name == "web-app"
        assert profile.golden is not None and profile.golden.passed


def test_the_core_agrees_with_the_vectors() -> None:
    assert "passed" in _node("vitest", "run")
