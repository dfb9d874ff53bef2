"""`predict` and `evaluate` with packages for segmentation and detection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import Exporter, Runner, dense_model
from PIL import Image

import sepvit_edge
from sepvit_edge.checkpoints.files import save_checkpoint
from sepvit_edge.package.folder import Package
from sepvit_edge.pipeline.answers import Answer, answer, answer_json, run_lengths
from sepvit_edge.pipeline.drawing import colour_of, draw_answer
from sepvit_edge.postprocess.detection import Detections

SIZE = (64, 96)


@pytest.fixture(scope="session")
def packages(
    tmp_path_factory: pytest.TempPathFactory, exported: Exporter
) -> dict[str, tuple[Package, Path]]:
    """A package for each task, and its checkpoint."""
    pytest.importorskip("openvino")
    made = {}
    for task, head in (("segmentation", "semantic-fpn"), ("detection", "retinanet")):
        folder = tmp_path_factory.mktemp(task)
        weights = folder / "a.safetensors"
        save_checkpoint(dense_model(head, SIZE), weights)
        model = sepvit_edge.load_checkpoint(weights, task=task)
        made[task] = exported(model, images=2), weights
    return made


def test_predict_gives_segments_that_fill_the_image(
    packages: dict, photo: Path, tmp_path: Path, run_command: Runner
) -> None:
    package, _ = packages["segmentation"]
    folder = tmp_path / "drawn"
    done = run_command("predict", package.path, photo, "--draw", folder, "--json")
    assert done.status == 0, done.err
    (found,) = json.loads(done.out)
    assert (found["height"], found["width"]) == (100, 240)
    session = sepvit_edge.open_package(package.path)
    classes = answer(session, photo).classes
    assert classes is not None and classes.shape == (100, 240)
    assert sum(segment["area"] for segment in found["segments"]) == 24_000
    for segment in found["segments"]:
        rle = segment["segmentation"]
        bits = np.repeat(np.arange(len(rle["counts"])) % 2, rle["counts"]).astype(bool)
        mask = bits.reshape(rle["size"][::-1]).T
        assert np.array_equal(mask, classes == segment["category_id"] - 1)
        assert package.labels[segment["category_id"] - 1] == segment["label"]
    with Image.open(found["drawn"]) as picture:
        assert picture.width == 240 and picture.height > 100
    table = run_command("predict", package.path, photo)
    assert table.status == 0 and "%" in table.out


def test_predict_gives_boxes_inside_the_image(
    packages: dict, photo: Path, tmp_path: Path, run_command: Runner
) -> None:
    package, _ = packages["detection"]
    done = run_command("predict", package.path, photo, photo, "--draw", tmp_path / "d", "--json")
    assert done.status == 0, done.err
    first, second = json.loads(done.out)
    assert first["drawn"] != second["drawn"] and Path(second["drawn"]).is_file()
    session = sepvit_edge.open_package(package.path)
    found = answer(session, photo).found
    assert found is not None
    scores = [float(score) for score in found.scores]
    assert [box["score"] for box in first["boxes"]] == [x for x in scores if x >= 0.3]
    done = run_command("predict", package.path, photo, "--min-score", 0, "--json")
    assert [box["score"] for box in json.loads(done.out)[0]["boxes"]] == scores
    for box in first["boxes"]:
        left, top, width, height = box["bbox"]
        assert min(left, top) >= 0 and left + width <= 240.01 and top + height <= 100.01
        assert package.labels[box["category_id"] - 1] == box["label"]


def test_what_does_not_fit_the_task_is_refused(
    packages: dict, photo: Path, tmp_path: Path, run_command: Runner
) -> None:
    package, _ = packages["detection"]
    segments, _ = packages["segmentation"]
    done = run_command("predict", segments.path, photo, "--min-score", 0.5)
    assert done.status == 2 and "--min-score is not for segmentation" in done.err
    for option in (("--top", 2), ("--save", tmp_path / "x.csv")):
        done = run_command("predict", package.path, photo, *option)
        assert done.status == 2 and f"{option[0]} is not for detection" in done.err
    done = run_command("predict", package.path, photo, "--draw", photo)
    assert done.status == 2 and "is a file" in done.err
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    done = run_command("predict", package.path, broken, photo, "--json")
    assert done.status == 2 and "1 of 2 images could not be used" in done.err
    done = run_command("evaluate", package.path, "--data", "scenes", "--confusion", "a.png")
    assert done.status == 2 and "--confusion" in done.err
    done = run_command("evaluate", package.path)
    assert done.status == 2 and "give a COCO file by --data" in done.err
    done = run_command("evaluate", package.path, "--data", "scenes")
    assert done.status == 2 and "the classes of scenes/test are not the model's" in done.err


def coco_of(package: Package, photo: Path) -> Path:
    """A file whose boxes are those that a package finds."""
    found = answer(sepvit_edge.open_package(package.path), photo).found
    assert found is not None and len(found)
    document = {
        "images": [{"id": 1, "file_name": photo.name, "width": 240, "height": 100}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(package.labels)],
        "annotations": [
            {
                "id": i,
                "image_id": 1,
                "category_id": int(label),
                "bbox": [*map(float, [*box[:2], *(box[2:] - box[:2])])],
            }
            for i, (box, label) in enumerate(zip(found.boxes, found.classes, strict=True))
        ],
    }
    path = photo.parent / "boxes.json"
    path.write_text(json.dumps(document))
    return path


def test_evaluate_measures_boxes_of_package_and_reference(
    packages: dict, photo: Path, run_command: Runner
) -> None:
    pytest.importorskip("faster_coco_eval", reason="needs [dense]")
    package, weights = packages["detection"]
    path = coco_of(package, photo)
    arguments = ("evaluate", package.path, "--data", path, "--weights", weights)
    done = run_command(*arguments, "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["package"]["ap50"] > 0.99 and report["agreement"] > 0.9
    assert report["images"] == 1 and "ap" in report["reference"]
    assert "AP50" in run_command(*arguments).out


def test_evaluate_measures_masks(
    packages: dict, photo: Path, tmp_path: Path, run_command: Runner
) -> None:
    package, _ = packages["segmentation"]
    classes = answer(sepvit_edge.open_package(package.path), photo).classes
    assert classes is not None
    mask = classes.astype(np.uint8)
    mask[:50] = 255
    root = tmp_path / "set"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    photo.rename(root / "images" / "photo.png")
    Image.fromarray(mask).save(root / "masks" / "photo.png")
    done = run_command("evaluate", package.path, "--data", root, "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["package"]["miou"] == report["package"]["pixel_accuracy"] == 1
    assert "reference" not in report and "agreement" not in report
    mask[50:] = (mask[50:] + 1) % len(package.labels)
    Image.fromarray(mask).save(root / "masks" / "photo.png")
    report = json.loads(run_command("evaluate", package.path, "--data", root, "--json").out)
    assert report["package"]["pixel_accuracy"] == 0


def test_drawings_show_classes_and_boxes() -> None:
    image = Image.new("RGB", (60, 40), "black")
    classes = np.zeros((40, 60), np.uint16)
    classes[:, 30:] = 1
    drawn = np.asarray(draw_answer(image, Answer((40, 60), classes=classes), ("a", "b")))
    assert drawn.shape[1] == 60 and drawn.shape[0] > 40
    for column, index in ((10, 0), (50, 1)):
        assert np.abs(drawn[20, column] - 0.55 * np.array(colour_of(index))).max() <= 1
    found = Detections(
        np.array([[20, 20, 50, 38]], np.float32), np.array([0.9], np.float32), np.array([1])
    )
    drawn = np.asarray(draw_answer(image, Answer((40, 60), found=found), ("a", "b")))
    assert tuple(drawn[37, 30]) == colour_of(1) and tuple(drawn[30, 35]) == (0, 0, 0)
    document = answer_json(Answer((40, 60), found=found), ("a", "b"))
    assert document["boxes"][0]["bbox"] == [20, 20, 30, 18]
    assert document["boxes"][0]["category_id"] == 2


def test_run_lengths_are_those_of_coco() -> None:
    mask = np.random.default_rng(1).random((7, 5)) < 0.4
    for each in (mask, ~mask, np.zeros((3, 2), bool), np.ones((3, 2), bool)):
        found = run_lengths(each)
        assert sum(found["counts"]) == each.size
        bits = np.repeat(np.arange(len(found["counts"])) % 2, found["counts"])
        assert np.array_equal(bits.astype(bool), each.ravel(order="F"))
    assert run_lengths(np.ones((3, 2), bool))["counts"] == [0, 6]
