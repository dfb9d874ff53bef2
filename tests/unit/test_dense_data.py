"""Images with boxes and masks: what is read, what is left out, what is rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sepvit_edge.data.dense.choose import dense_splits, open_dense
from sepvit_edge.data.dense.coco import CocoBoxes
from sepvit_edge.data.dense.scenes import RANGES, SIDE, Scenes
from sepvit_edge.errors import SepViTError


def coco(folder: Path, annotations: list[Any], name: str = "boxes.json", **changes: Any) -> Path:
    """Two images of 40 x 30 pixels, three classes, and the file that lists them."""
    folder.mkdir(exist_ok=True)
    for i in (1, 2):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(folder / f"{i}.png")
    document = {
        "images": [
            {"id": 7, "file_name": "1.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "2.png", "width": 40, "height": 30},
        ],
        "categories": [
            {"id": 5, "name": "cat"},
            {"id": 2, "name": "dog"},
            {"id": 9, "name": "owl"},
        ],
        "annotations": annotations,
        **changes,
    }
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def box(image: int = 7, category: int = 5, bbox: Any = (1, 2, 10, 20), **more: Any) -> dict:
    return {"id": 11, "image_id": image, "category_id": category, "bbox": bbox, **more}


def test_classes_and_images_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    data = CocoBoxes(coco(tmp_path, [box(), box(category=9, bbox=[0, 0, 4.5, 30], iscrowd=1)]))
    assert data.labels == ("dog", "cat", "owl") and len(data) == 2
    assert [data[i].image.getpixel((0, 0))[0] for i in range(2)] == [2, 1]
    objects = data[1].objects
    assert objects is not None and objects.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 4.5, 30]]
    assert objects.classes.tolist() == [1, 2] and objects.crowd.tolist() == [False, True]
    nothing = data[0].objects
    assert nothing is not None and nothing.boxes.shape == (0, 4) and len(nothing) == 0


def test_boxes_are_cut_at_the_border_and_empty_ones_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [[-5, 10, 10, 100], [40, 0, 5, 5], [3, 3, 0, 4], [-9, -9, 9, 9], [39, 29, 1, 1]]
    data = CocoBoxes(coco(tmp_path, [box(bbox=b) for b in boxes]))
    objects = data[1].objects
    assert objects is not None and objects.boxes.tolist() == [[0, 10, 5, 30], [39, 29, 40, 30]]
    assert "3 boxes" in caplog.text and "annotation 11" in caplog.text


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (box(image=8), "annotation 11 is of image 8, which is not listed"),
        (box(category=1), "annotation 11 is of category 1, which is not listed"),
        (box(category=True), "is of category True"),
        (box(bbox=[1, 2, 3]), "the bbox of annotation 11 is not"),
        (box(bbox=[1, 2, float("nan"), 3]), "the bbox of annotation 11 is not"),
        (box(bbox="1234"), "the bbox of annotation 11 is not"),
        (box(bbox=[10, 10, -3, 5]), "annotation 11 has a negative side"),
        (5, "entry 0 of annotations is not an object"),
    ],
)
def test_contradictory_annotations_are_rejected_by_id(
    tmp_path: Path, annotation: Any, says: str
) -> None:
    with pytest.raises(SepViTError, match=says) as refusal:
        CocoBoxes(coco(tmp_path, [annotation]))
    assert "boxes.json" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": []}, "lists no images"),
        ({"categories": []}, "lists no categories"),
        ({"annotations": {}}, "has no list 'annotations'"),
        ({"images": [{"id": 1}]}, "id 1 of images has no file_name"),
        ({"images": [{"file_name": "1.png"}]}, "entry 0 of images has no integer id"),
        ({"images": [{"id": 1, "file_name": "1.png", "width": 40}]}, "image 1 has no height"),
        (
            {"images": [{"id": 1, "file_name": "9.png", "width": 4, "height": 3}]},
            "lists 9.png, which is in none of",
        ),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "the id 1 twice"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "of one name"),
    ],
)
def test_damaged_coco_files_are_rejected(tmp_path: Path, changes: dict, says: str) -> None:
    with pytest.raises(SepViTError, match=says):
        CocoBoxes(coco(tmp_path, **{"annotations": [], **changes}))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "{}", "[" * 100_000])
def test_what_is_no_coco_file_is_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(SepViTError, match=r"a\.json"):
        CocoBoxes(path)


def test_an_image_of_another_size_is_rejected(tmp_path: Path) -> None:
    data = CocoBoxes(coco(tmp_path, [box()]))
    Image.new("RGB", (30, 40)).save(tmp_path / "1.png")
    with pytest.raises(SepViTError, match=r"30 x 40 .* states 40 x 30 for image 7"):
        data[1]


def test_images_lie_where_coco_and_others_put_them(tmp_path: Path) -> None:
    path = coco(tmp_path / "train2017", [box()], "instances_train2017.json")
    (tmp_path / "annotations").mkdir()
    moved = path.rename(tmp_path / "annotations" / path.name)
    assert len(CocoBoxes(moved)) == 2
    beside = coco(tmp_path / "val", [box()], "_annotations.coco.json")
    splits = dense_splits(tmp_path, "detection")
    assert splits == {"train": moved, "validation": beside}
    open_dense(beside, "detection", ["dog", "cat", "owl"])
    with pytest.raises(SepViTError, match="class 0 is 'dog' there and 'cat'"):
        open_dense(beside, "detection", ["cat", "dog", "owl"])


def masks(root: Path, values: np.ndarray, labels: str = "sky\ngrass\n") -> Path:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(root / "images" / "a.jpg")
    Image.fromarray(values).save(root / "masks" / "a.png")
    (root / "labels.txt").write_text(labels)
    return root


def test_index_masks_are_read_with_their_labels(tmp_path: Path) -> None:
    values = np.zeros((4, 6), np.uint8)
    values[1], values[2] = 1, 255
    root = masks(tmp_path / "train", values)
    data = open_dense(root, "segmentation")
    assert data.labels == ("sky", "grass") and len(data) == 1
    assert np.array_equal(data[0].mask, values) and data[0].objects is None
    assert dense_splits(tmp_path, "segmentation") == {"train": root}


def test_a_palette_image_is_a_mask_by_its_numbers(tmp_path: Path) -> None:
    root = masks(tmp_path, np.zeros((4, 6), np.uint8))
    picture = Image.fromarray(np.full((4, 6), 1, np.uint8)).convert("P")
    picture.putpalette([9, 9, 9, 200, 0, 0])
    picture.save(root / "masks" / "a.png")
    assert (open_dense(root, "segmentation")[0].mask == 1).all()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((4, 6), 2, np.uint8), "a.png has the class 2, but there are 2 classes, 0 to 1"),
        (np.full((4, 6), 300, np.uint16), "has the class 300"),
        (np.zeros((6, 4), np.uint8), "a.png has 4 x 6 pixels, and .*a.jpg has 6 x 4"),
        (np.zeros((4, 6, 3), np.uint8), "a.png is a colour image"),
    ],
)
def test_wrong_masks_are_rejected_by_file(tmp_path: Path, values: np.ndarray, says: str) -> None:
    with pytest.raises(SepViTError, match=says):
        open_dense(masks(tmp_path, values), "segmentation")[0]


def test_incomplete_folders_of_masks_are_rejected(tmp_path: Path) -> None:
    root = masks(tmp_path, np.zeros((4, 6), np.uint8), "sky\nsky\n")
    with pytest.raises(SepViTError, match="class 'sky' twice"):
        open_dense(root, "segmentation")
    (root / "labels.txt").write_text("sky\n\ngrass\n")
    with pytest.raises(SepViTError, match="label 1 is empty"):
        open_dense(root, "segmentation")
    (root / "labels.txt").unlink()
    with pytest.raises(SepViTError, match=r"has no labels\.txt"):
        open_dense(root, "segmentation")
    assert len(open_dense(root, "segmentation", ["sky", "grass"])) == 1
    (root / "masks" / "a.png").unlink()
    with pytest.raises(SepViTError, match="there is no mask"):
        open_dense(root, "segmentation", ["sky", "grass"])
    with pytest.raises(SepViTError, match="there is no file or folder"):
        open_dense(tmp_path / "x" / "y", "detection")
    with pytest.raises(SepViTError, match="scenes"):
        open_dense("scene", "detection")


def test_scenes_have_boxes_around_the_pixels_of_their_plates() -> None:
    boxes, pixels = Scenes("train", "detection", 6), Scenes("train", "segmentation", 6)
    for i in range(6):
        found, mask = boxes[i].objects, pixels[i].mask
        assert found is not None and mask is not None and mask.shape == (SIDE, SIDE)
        assert 1 <= len(found) <= RANGES.plates[1]
        assert np.array_equal(np.asarray(boxes[i].image), np.asarray(pixels[i].image))
        assert set(mask[mask > 0]) == {1 + label for label in found.classes}
        left, top, right, bottom = found.boxes.astype(int)[-1]
        plate = mask == 1 + found.classes[-1]
        assert plate[top:bottom, left:right].mean() > 0.5
        assert plate[top].any() and plate[bottom - 1].any() and plate[:, left].any()


def test_scenes_repeat_and_differ_by_split_and_epoch() -> None:
    def pixels(*arguments: Any, **more: Any) -> bytes:
        return Scenes(*arguments, 2, **more)[1].image.tobytes()

    first = pixels("train", "detection")
    assert first == pixels("train", "detection")
    others = {pixels("test", "detection"), pixels("train", "detection", epoch=1)}
    assert len({first, *others}) == 3
    with pytest.raises(SepViTError, match="split"):
        Scenes("trein", "detection")
