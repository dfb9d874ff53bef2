"""Packages in an app: what is copied, what is refused, and that nothing is left half-done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers import REPOSITORY, TESTS, Runner

from sepvit_edge.errors import SepViTError
from sepvit_edge.model.reference import SepViT
from sepvit_edge.package.folder import Package, compare_packages
from sepvit_edge.pipeline import export
from sepvit_edge.pipeline.apps import APPS, bundle_packages

TINY = TESTS / "vectors" / "package"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def test_packages_and_their_index(run_command: Runner, tiny: Path, project: Path) -> None:
    other = Path(shutil.copytree(tiny, tiny.parent / "another"))
    (other / "notes.txt").write_text("not listed in the manifest")
    arguments = (tiny, other, "--app", "android", "--project", project)
    done = run_command("bundle", *arguments, "--json")
    assert done.status == 0
    folder = project / "app/src/main/assets/packages"
    document = json.loads(done.out)
    assert document["folder"] == str(folder)
    assert [p["package"] for p in document["packages"]] == ["tiny", "another"]
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    files = ["manifest.json", "golden.safetensors", "labels.txt", "model.onnx"]
    assert index["packages"] == [
        {"folder": "tiny", "files": files},
        {"folder": "another", "files": files},
    ]
    compare_packages(TINY, folder / "tiny")
    compare_packages(TINY, folder / "another")  # without the file that nobody lists

    again = run_command("bundle", other, "--app", "android", "--project", project)
    assert again.status == 0 and "another" in again.out
    assert sorted(p.name for p in folder.iterdir()) == ["another", "index.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["packages"]


def test_without_a_package_the_app_gets_lite_in_int8(
    run_command: Runner, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export itself is left out here, and made by the test below."""
    asked = []

    def copy(model: SepViT, target: str, precision: str, output: Path) -> Package:
        assert model.quantization is not None and model.quantization.trained
        asked.append((model.config.variant, target, precision))
        return Package(shutil.copytree(TINY, output))

    monkeypatch.setattr(export, "export_package", copy)
    done = run_command("bundle", "--app", "web", "--project", project, "--json")
    assert done.status == 0, done.err
    assert asked == [("lite", "onnxruntime", "int8")]
    (bundled,) = json.loads(done.out)["packages"]
    folder = project / "public/packages/lite-onnxruntime-int8"
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert bundled == {
        "package": folder.name,
        "target": "onnxruntime",
        "precision": Package(folder).manifest.precision,
        "bytes": size,
    }


@pytest.mark.slow
def test_the_package_that_an_app_gets_is_small(run_command: Runner, project: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = run_command("bundle", "--app", "web", "--project", project, "--json")
    assert done.status == 0, done.err
    (bundled,) = json.loads(done.out)["packages"]
    assert (bundled["target"], bundled["precision"]) == ("onnxruntime", "int8")
    assert bundled["bytes"] < 5e6
    package = Package(project / "public/packages/lite-onnxruntime-int8")
    assert package.manifest.quantization is not None and package.manifest.quantization.trained


def test_every_app_of_the_repository_is_known() -> None:
    folders = {p.name for p in (REPOSITORY / "apps").iterdir() if p.is_dir()}
    assert folders <= APPS.keys()


@pytest.mark.parametrize(
    ("app", "sentence"),
    [("andriod", "did you mean 'android'"), ("ios", "is for onnxruntime, which the ios app")],
)
def test_what_an_app_cannot_run(
    run_command: Runner, tiny: Path, project: Path, app: str, sentence: str
) -> None:
    done = run_command("bundle", tiny, "--app", app, "--project", project)
    assert done.status == 2 and sentence in done.err
    assert list(project.iterdir()) == []


def test_the_file_that_keeps_an_empty_folder_stays(tiny: Path, project: Path) -> None:
    folder = project / "public/packages"
    folder.mkdir(parents=True)
    (folder / ".gitkeep").touch()
    for _ in range(2):
        assert bundle_packages([tiny], "web", project) == folder
        assert {p.name for p in folder.iterdir()} == {".gitkeep", "index.json", "tiny"}


def test_damage_is_found_before_anything_is_replaced(tiny: Path, project: Path) -> None:
    folder = bundle_packages([tiny], "android", project)
    broken = Path(shutil.copytree(tiny, tiny.parent / "broken"))
    (broken / "labels.txt").write_text("x")
    with pytest.raises(SepViTError, match="was changed"):
        bundle_packages([tiny, broken], "android", project)
    Package(folder / "tiny")
    assert sorted(p.name for p in folder.iterdir()) == ["index.json", "tiny"]


def test_bad_usage_is_one_sentence(tiny: Path, project: Path) -> None:
    same = Path(shutil.copytree(tiny, tiny.parent / "elsewhere" / "tiny"))
    with pytest.raises(SepViTError, match="two packages are called 'tiny'"):
        bundle_packages([tiny, same], "android", project)
    with pytest.raises(SepViTError, match="at least one"):
        bundle_packages([], "android", project)
    with pytest.raises(SepViTError, match="--project"):
        bundle_packages([tiny], "android", project / "none")
    precious = project / "app/src/main/assets/packages"
    precious.mkdir(parents=True)
    (precious / "photo.jpg").write_text("precious")
    with pytest.raises(SepViTError, match="holds something else"):
        bundle_packages([tiny], "android", project)
    assert (precious / "photo.jpg").exists()


def test_a_failed_copy_leaves_the_old_packages(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundle_packages([tiny], "android", project)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        bundle_packages([tiny], "android", project)
    Package(folder / "tiny")
    assert [p.name for p in folder.parent.iterdir()] == ["packages"]
