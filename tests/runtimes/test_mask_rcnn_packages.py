"""Mask R-CNN as a package of three graphs: export, predict, evaluate, and what refuses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import Exporter, Runner, dense_model, run_process
from PIL import Image

import sepvit_edge
from sepvit_edge.checkpoints.files import save_checkpoint
from sepvit_edge.cli import profile_tables
from sepvit_edge.cli.tables import export_rows
from sepvit_edge.config.recipe import find_recipe
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.logits import reference_heads
from sepvit_edge.package.folder import Package
from sepvit_edge.package.manifest import Manifest
from sepvit_edge.package.session import PackageSession
from sepvit_edge.pipeline.answers import answer
from sepvit_edge.pipeline.drawing import colour_of
from sepvit_edge.pipeline.taps import by_block
from sepvit_edge.pipeline.twins import run_twin
from sepvit_edge.profiling.document import read_profile

SIZE = (64, 96)
GRAPHS = {
    "box-head": ["region_class_logits", "region_box_deltas"],
    "mask-head": ["region_mask_logits"],
}


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, exported: Exporter) -> tuple[Package, Path]:
    """A package, and its checkpoint."""
    pytest.importorskip("openvino")
    weights = tmp_path_factory.mktemp("mask-rcnn") / "a.safetensors"
    save_checkpoint(dense_model("mask-rcnn", SIZE), weights)
    model = sepvit_edge.load_checkpoint(weights, task="detection")
    return exported(model, images=1), weights


def check_manifest(manifest: Manifest) -> None:
    assert manifest.task == "instance-segmentation" and manifest.model.head == "mask-rcnn"
    assert manifest.graphs is not None
    found = {graph.name: [output.name for output in graph.outputs] for graph in manifest.graphs}
    assert found == GRAPHS
    names = [output.name for output in manifest.outputs]
    names += [name for outputs in GRAPHS.values() for name in outputs]
    assert [output.name for output in manifest.parity.outputs] == names
    # Measured: 120 dB and more on every runtime.
    assert min(output.sqnr_db for output in manifest.parity.outputs) > 100
    assert manifest.parity.top1_agreement > 0.95
    for placement in (manifest.placement, *(graph.placement for graph in manifest.graphs)):
        assert placement.outside == () and placement.macs_unattributed == 0


def test_a_package_has_three_graphs(package: tuple[Package, Path]) -> None:
    opened, _ = package
    check_manifest(opened.manifest)
    assert opened.manifest.postprocessing.task == "instance-segmentation"
    files = {file.path for file in opened.manifest.files}
    assert {"model.xml", "box-head/model.xml", "mask-head/model.bin"} <= files
    golden = opened.golden()
    assert len(golden["package.boxes.0"]) == len(golden["package.mask_areas.0"]) > 0


def test_heads_take_any_number_of_regions(package: tuple[Package, Path]) -> None:
    opened, weights = package
    session = sepvit_edge.open_package(opened.path)
    model = sepvit_edge.load_checkpoint(weights, task="detection")
    for count in (0, 3, 23):
        regions = np.random.default_rng(count).normal(size=(count, 16, 14, 14)).astype(np.float32)
        (found,) = session.run_graph("mask-head", regions)
        assert found.shape == (count, 5, 28, 28)
        (expected,) = reference_heads(model)("mask-head", regions)
        assert np.allclose(found, expected, atol=1e-4)


def test_the_table_of_an_export_has_every_graph(package: tuple[Package, Path]) -> None:
    rows = export_rows(package[0], None)
    names = [name for name, _ in rows]
    assert names.count("CPU plugin") >= 3 and {"box-head", "mask-head"} <= {*names}
    assert rows[-1] == ("latency", "not measured: it depends on the objects in an image")


def test_every_part_is_as_near_as_the_whole(package: tuple[Package, Path]) -> None:
    model = sepvit_edge.load_checkpoint(package[1], task="detection")
    pixels = package[0].golden()["pixels"][:1]
    distances = by_block(
        run_twin(model, find_recipe("openvino", "fp32"), pixels), model, pixels, "fp32"
    )
    names = {distance.name for distance in distances}
    assert {"neck.4", "stages.3.norm", "proposal_logits", "pyramid_32"} <= names
    assert min(distance.sqnr_db for distance in distances) > 100


def test_predict_gives_a_mask_for_each_box(
    package: tuple[Package, Path], photo: Path, tmp_path: Path, run_command: Runner
) -> None:
    opened, _ = package
    options = ("--min-score", 0, "--json", "--draw", tmp_path / "drawn")
    done = run_command("predict", opened.path, photo, *options)
    assert done.status == 0, done.err
    (found,) = json.loads(done.out)
    one = answer(sepvit_edge.open_package(opened.path), photo)
    assert one.found is not None and one.found.masks is not None
    assert len(found["boxes"]) == len(one.found) > 0
    for box, mask in zip(found["boxes"], one.found.masks, strict=True):
        rle = box["segmentation"]
        assert rle["size"] == [100, 240] and sum(rle["counts"]) == 24_000
        bits = np.repeat(np.arange(len(rle["counts"])) % 2, rle["counts"]).astype(bool)
        assert np.array_equal(bits.reshape(240, 100).T, mask.whole((100, 240)))
        assert box["area"] == bits.sum()
        left, top, width, height = box["bbox"]
        rows, columns = np.nonzero(mask.whole((100, 240)))
        assert len(rows) == 0 or (columns.min() >= np.floor(left) and rows.min() >= np.floor(top))
        assert len(rows) == 0 or (
            columns.max() < left + width + 1 and rows.max() < top + height + 1
        )
    with Image.open(found["drawn"]) as picture:
        assert picture.size == (240, 100)
        assert not np.array_equal(np.asarray(picture), np.asarray(Image.open(photo)))
    assert run_command("predict", opened.path, photo).status == 0


def coco_of(package: Package, photo: Path) -> Path:
    """A file whose objects are those that a package finds, but for those without a pixel."""
    found = answer(sepvit_edge.open_package(package.path), photo).found
    assert found is not None and found.masks is not None
    from sepvit_edge.data.dense.run_lengths import run_lengths

    annotations = []
    for i, mask in enumerate(found.masks):
        if mask.pixels.any():
            box = found.boxes[i]
            annotations.append(
                {
                    "id": i,
                    "image_id": 1,
                    "category_id": int(found.classes[i]),
                    "bbox": [*map(float, [*box[:2], *(box[2:] - box[:2])])],
                    "segmentation": run_lengths(mask.whole((100, 240))),
                }
            )
    document = {
        "images": [{"id": 1, "file_name": photo.name, "width": 240, "height": 100}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(package.labels)],
        "annotations": annotations,
    }
    path = photo.parent / "objects.json"
    path.write_text(json.dumps(document))
    return path


def test_evaluate_measures_boxes_and_masks_of_package_and_reference(
    package: tuple[Package, Path], photo: Path, run_command: Runner
) -> None:
    pytest.importorskip("faster_coco_eval", reason="needs [dense]")
    opened, weights = package
    path = coco_of(opened, photo)
    arguments = ("evaluate", opened.path, "--data", path, "--weights", weights)
    done = run_command(*arguments, "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    for side in ("package", "reference"):
        assert report[side]["ap50"] > 0.7 and report[side]["mask_ap50"] > 0.7
    assert report["agreement"] > 0.95
    document = json.loads(path.read_text())
    for annotation in document["annotations"]:  # masks elsewhere, boxes as they are
        annotation["segmentation"] = [[0, 0, 3, 0, 3, 3]]
    path.write_text(json.dumps(document))
    report = json.loads(run_command("evaluate", opened.path, "--data", path, "--json").out)
    assert report["package"]["ap50"] > 0.7 and report["package"]["mask_ap50"] < 0.1
    del document["annotations"][0]["segmentation"]
    path.write_text(json.dumps(document))
    done = run_command("evaluate", opened.path, "--data", path)
    assert done.status == 2 and "annotation 0 has no segmentation" in " ".join(done.err.split())


def test_a_package_without_its_heads_is_refused(
    package: tuple[Package, Path], tmp_path: Path
) -> None:
    document = package[0].manifest.model_dump()
    graphs = document["graphs"]
    for left, sentence in (
        (None, "has one graph box-head"),
        (graphs[:1], "has one graph mask-head"),
        ([graphs[0] | {"outputs": []}, graphs[1]], "box-head has one output"),
        ([graphs[0] | {"name": "../box"}, graphs[1]], "graphs.0.name"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Manifest.model_validate(document | {"graphs": left})
    shutil.copytree(package[0].path, tmp_path / "p")
    (tmp_path / "p" / "mask-head" / "model.bin").unlink()
    with pytest.raises(SepViTError, match=r"mask-head/model\.bin is missing"):
        Package(tmp_path / "p")


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A device's file: this machine, a few runs."""
    path = tmp_path / "quick.toml"
    path.write_text(
        'description = "This machine"\n[connection]\nkind = "local"\n'
        "[measuring]\ntargets = []\nthreads = [1]\nruns = 2\nseconds = 0\n"
    )
    return path


def test_profile_times_an_image_step_by_step(
    package: tuple[Package, Path], quick: Path, tmp_path: Path, run_command: Runner
) -> None:
    opened, _ = package
    options = ("--device", quick, "--report", tmp_path / "r.html", "--json")
    done = run_command("profile", opened.path, *options)
    assert done.status == 0, done.err
    (document,) = json.loads(done.out)
    profile = read_profile(document, "the command")
    assert profile.complete and profile.golden is not None and profile.trust is not None
    assert profile.latency is not None and profile.latency.runs == 2
    missing = {item.what for item in profile.not_measured}
    assert profile.memory is None and {"memory", "cold_start", "operations", "roofs"} <= missing
    steps = profile.steps
    assert steps is not None and steps.objects == len(opened.golden()["package.boxes.0"]) > 10
    graphs = {step.name: step.calls for step in steps.items if step.where == "graph"}
    calls = {"box-head": -(-steps.regions // 100), "mask-head": -(-steps.objects // 10)}
    assert graphs == {"first stage": 1, **calls} and steps.regions > 100
    rules = ["proposals", "box features", "boxes", "mask features", "masks"]
    assert [step.name for step in steps.items if step.where == "host"] == rules
    rows = profile_tables.profile_rows(profile)
    shares = [float(dict(rows)[step.name].split("%")[0]) for step in steps.items]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    page = (tmp_path / "r.html").read_text()
    assert all(f"<td>{step.name}</td><td>{step.where}</td>" in page for step in steps.items)


def test_profile_times_no_image_where_the_first_stage_is_another(
    package: tuple[Package, Path],
    quick: Path,
    run_command: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = PackageSession.run_input
    monkeypatch.setattr(
        PackageSession, "run_input", lambda self, x: [y * 1.01 for y in run(self, x)]
    )
    done = run_command("profile", package[0].path, "--device", quick, "--json")
    (document,) = json.loads(done.out)
    assert done.status == 1 and not document["complete"]
    assert document["latency"] is None and document["steps"] is None
    assert "not timed" in document["incomplete_reason"]


def test_what_has_no_mask_rcnn_says_so(
    package: tuple[Package, Path], tmp_path: Path, run_command: Runner
) -> None:
    opened, _ = package
    train = ("train", "--task", "detection", "--head", "mask-rcnn", "--data", "scenes")
    for command, sentence in (
        (("profile", "--ab", opened.path, opened.path), "--ab times packages of one graph"),
        (("profile", opened.path, "--device", "pixel-8"), "run on this machine only"),
        (("profile", opened.path, "--execution", "NPU"), "leave --execution out"),
        (("profile", opened.path, "--etdump", opened.path), "--etdump is of one graph"),
        (("bundle", opened.path, "--app", "web"), "which no app runs"),
        ((*train, "--output", tmp_path / "a.safetensors"), "Mask R-CNN is not trained here"),
    ):
        done = run_command(*command)
        assert done.status == 2 and sentence in " ".join(done.err.split()), done.err
        assert "Traceback" not in done.err


# Measured, against the same int8 in torch: see test_dense_packages.py. A wrong scale leaves 5 dB.
def test_int8_of_every_graph(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = dense_model("mask-rcnn", SIZE)
    package = sepvit_edge.export_package(model, "openvino", "int8", tmp_path / "p", images=1)
    manifest = package.manifest
    assert all(output.sqnr_quantized_db > 20 for output in manifest.parity.outputs)
    floats = {layer.name for layer in manifest.quantization.float_layers}
    assert not any(name.startswith(("neck", "head", "box_head", "mask_head")) for name in floats)
    for placement in (manifest.placement, *(graph.placement for graph in manifest.graphs)):
        assert sum(p.macs_share for p in placement.placed if p.precision != "f32") > 0.5


@pytest.mark.parametrize(
    ("target", "library"), [("onnxruntime", "onnxruntime"), ("coreml", "coremltools")]
)
def test_other_runtimes(target: str, library: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    model = dense_model("mask-rcnn", SIZE)
    package = sepvit_edge.export_package(model, target, "fp32", tmp_path / "p", images=1)
    check_manifest(package.manifest)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_executorch_is_one_delegate_a_graph(precision: str, tmp_path: Path) -> None:
    """In a process of its own, as in test_dense_packages.py."""
    pytest.importorskip("executorch")
    save_checkpoint(dense_model("mask-rcnn", SIZE), weights := tmp_path / "a.safetensors")
    done = run_process(
        "export", "--target", "executorch", "--task", "detection", "--head", "mask-rcnn",
        "--weights", weights, "--precision", precision, "--images", 1, "--output", tmp_path / "p",
    )  # fmt: skip
    assert done.status == 0, done.err
    manifest = Package(tmp_path / "p").manifest
    if precision == "fp32":
        check_manifest(manifest)
    else:  # see test_int8_of_every_graph
        assert all(output.sqnr_quantized_db > 20 for output in manifest.parity.outputs)
    for placement in (manifest.placement, *(graph.placement for graph in manifest.graphs)):
        assert {place.where for place in placement.placed} == {"XNNPACK delegate"}


def test_drawn_masks_have_the_colours_of_their_classes() -> None:
    from sepvit_edge.pipeline.answers import Answer
    from sepvit_edge.pipeline.drawing import draw_answer
    from sepvit_edge.postprocess.detection import Detections
    from sepvit_edge.postprocess.masks import Mask

    boxes = np.array([[10, 20, 50, 38], [10, 20, 50, 38]], np.float32)
    masks = tuple(Mask(10, 20, np.ones((18, 40), bool)) for _ in range(2))
    found = Detections(boxes, np.array([0.9, 0.5], np.float32), np.array([1, 0]), masks)
    drawn = np.asarray(draw_answer(Image.new("RGB", (60, 40)), Answer((40, 60), found=found), "ab"))
    assert np.abs(drawn[30, 30] - 0.55 * np.array(colour_of(1))).max() <= 1  # the better one's
    assert tuple(drawn[39, 5]) == (0, 0, 0)
