"""Packages in an app: what is copied, what is refused, and that nothing is left half-done."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import REPOSITORY, TESTS, Runner

from sepvit_edge.errors import SepViTError
from sepvit_edge.model.reference import SepViT
from sepvit_edge.package.folder import Package, compare_packages
from sepvit_edge.pipeline import export
from sepvit_edge.pipeline.apps import APPS, bundle_packages
from sepvit_edge.pipeline.own_app import OWN_APPS

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
    assert f"packages: {folder}" in again.out
    assert again.out.splitlines()[-1] == f"run: cd {project} && gradle installDebug"
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
        "task": "classification",
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
    assert bundled["bytes"] < 6e6  # a model of 3.9 MB, golden vectors of 1.4; in fp32 14 and more
    package = Package(project / "public/packages/lite-onnxruntime-int8")
    assert package.manifest.quantization is not None and package.manifest.quantization.trained
    assert {"glass", "paper", "metal"} < {*package.labels}  # what a camera can be shown


def test_every_app_of_the_repository_is_known() -> None:
    folders = {p.name for p in (REPOSITORY / "apps").iterdir() if p.is_dir()}
    assert folders <= APPS.keys() == OWN_APPS.keys()


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


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_dense_packages_go_into_every_app_with_their_runtime(
    run_command: Runner, project: Path, task: str
) -> None:
    package = TESTS / "vectors" / task
    for app in ("android", "web"):
        done = run_command("bundle", package, "--app", app, "--project", project, "--json")
        (bundled,) = json.loads(done.out)["packages"]
        assert done.status == 0 and bundled["task"] == task
        compare_packages(package, project / APPS[app].folder / task)
    refused = run_command("bundle", package, "--app", "ios", "--project", project)
    assert refused.status == 2 and "export for coreml or coreai" in refused.err


def _own(folder: Path, app: str) -> Path:
    folder.mkdir()
    (folder / {"android": "build.gradle.kts", "web": "package.json"}[app]).write_text("mine")
    return folder


@pytest.mark.parametrize(
    ("app", "packages", "core", "last"),
    [
        ("android", "src/main/assets/packages", "src/main/kotlin/sepvit/edge", "./gradlew"),
        ("web", "public/packages", "src/sepvit-edge", "npm install @cfworker/json-schema@"),
    ],
)
def test_packages_and_core_go_into_an_app_of_ones_own(
    run_command: Runner, tiny: Path, tmp_path: Path, app: str, packages: str, core: str, last: str
) -> None:
    own = _own(tmp_path / "own", app)
    arguments = ("bundle", tiny, "--app", app, "--into", own)
    done = run_command(*arguments)
    assert done.status == 0, done.err
    compare_packages(TINY, own / packages / "tiny")
    assert f"core: {own / core}" in done.out and last in done.out.splitlines()[-1]
    sources = {p.name for p in (own / core).rglob("*") if p.is_file()}
    if app == "android":
        wanted = REPOSITORY / "apps/android/core/src/main/kotlin/sepvit/edge"
        assert "onnxruntime-android:" in done.out and "executorch" not in done.out
        assert sources == {p.name for p in wanted.iterdir()} | {"OnnxRuntimeEngine.kt"}
    else:
        assert sources == {p.name for p in (REPOSITORY / "apps/web/src/core").iterdir()} | {
            "manifest.schema.json"
        }
        # No source names a file of this repository.
        for path in (own / core).glob("*.ts"):
            assert not re.search(r'(from|import) "\.\./', path.read_text(encoding="utf-8")), path

    again = run_command(*arguments)
    assert again.status == 2 and "has packages already; add --force" in again.err
    shutil.rmtree(own / packages)
    changed = next((own / core).glob("[Pp]ostprocess.*"))
    changed.write_text("mine")
    again = run_command(*arguments)
    assert again.status == 2 and f"{changed.name} is there and differs; add --force" in again.err
    assert changed.read_text() == "mine" and not (own / packages).exists()
    assert run_command(*arguments, "--force").status == 0
    assert changed.read_text() != "mine"
    compare_packages(TINY, own / packages / "tiny")
    assert not list(own.rglob("*.partial"))


def test_sepvitkit_goes_into_an_app_as_a_package(tmp_path: Path) -> None:
    from sepvit_edge.pipeline.own_app import _ios

    files = _ios(set())
    assert "Tests" not in "".join(files) and b"testTarget" not in files["Package.swift"]
    assert b'.target(name: "SepViTKit"' in files["Package.swift"]
    schema = json.loads(files["Sources/SepViTKit/manifest.schema.json"])
    assert "postprocessing" in schema["properties"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--app", "android", "--into", "empty"), "is not the folder of a Gradle module"),
        (("--app", "ios", "--into", "empty"), "is not the folder of an Xcode project"),
        (("--app", "web", "--into", "none"), "is not the folder of an npm package"),
        (("--app", "web", "--into", "own", "--project", "empty"), "give one"),
        (("--app", "web", "--force"), "--force is for --into"),
        (("--app", "web", "--into", "taken"), "holds something else"),
        (("--app", "web", "--into", "blocked"), "src is a file, where a folder is to be"),
        (("--app", "web", "--into", "blocked", "--force"), "src is a file, where a folder is"),
        (("--app", "web", "--into", "odd"), "engine.ts is a folder, where a file is to be"),
    ],
)
def test_what_is_not_an_app_of_ones_own(
    run_command: Runner,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    _own(Path("own"), "web")
    (_own(Path("taken"), "web") / "public/packages").mkdir(parents=True)
    Path("taken/public/packages/photo.jpg").write_text("precious")
    (_own(Path("blocked"), "web") / "src").write_text("precious")
    (_own(Path("odd"), "web") / "src/sepvit-edge/engine.ts").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    done = run_command("bundle", tiny, *arguments)
    assert done.status == 2 and sentence in done.err, done.err
    assert sorted(tmp_path.rglob("*")) == before


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
