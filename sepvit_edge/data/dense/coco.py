"""Images with boxes, as COCO's JSON describes them.

As COCO's own tools and MMDetection: classes are in the order of their ids; a box is cut at the
image's border; one without area, or wholly outside, is left out, and said so once; a crowd is not
trained on; an image without annotations is a picture of background. Whatever is contradictory is
rejected with file and id.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import SepViTError, reason_of
from ..preprocess import load_image, to_rgb
from .sample import DenseSample, Objects

_log = logging.getLogger(__name__)


class CocoBoxes:
    """The images that a COCO file lists, with their boxes.

    Parameters
    ----------
    path : Path
        The JSON file. Images lie beside it, or in a folder beside it with the same name, or with
        the name images; or where COCO has them: ``train2017`` for
        ``annotations/instances_train2017.json``.
    segments : bool
        Read the pixels of each object too; every annotation must have them.

    Attributes
    ----------
    name : str
        Name of the file and its folder.
    labels : tuple of str
        Names of the categories, in the order of their ids.

    Raises
    ------
    SepViTError
        If the file is damaged or contradictory, or an image is missing.
    """

    def __init__(self, path: Path, segments: bool = False) -> None:
        self._path, self._segments = path, segments
        self.name = f"{path.absolute().parent.name}/{path.name}"
        document = self._read()
        categories = self._by_id(document, "categories", "name", str)
        images = self._by_id(document, "images", "file_name", str)
        self._classes = {number: index for index, number in enumerate(sorted(categories))}
        self.labels = tuple(categories[number]["name"] for number in self._classes)
        if not images or not categories:
            raise SepViTError(f"{path} lists no {'categories' if images else 'images'}")
        if len(set(self.labels)) < len(self.labels):
            raise SepViTError(f"{path} has two categories of one name; give each another name")
        self._images = [images[number] for number in sorted(images)]
        self._folder = self._find_folder()
        self._left_out: list[Any] = []
        self._objects = self._group(document["annotations"], images)
        if self._left_out:
            _log.warning(
                f"{path}: {len(self._left_out)} boxes without area or outside their image are left "
                f"out, the first is annotation {self._left_out[0]}"
            )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> DenseSample:
        """Read one image.

        Raises
        ------
        SepViTError
            If it cannot be read, or has another size than the file states.
        """
        facts = self._images[index]
        path = self._folder / facts["file_name"]
        image = to_rgb(load_image(path))
        if image.size != (facts["width"], facts["height"]):
            raise SepViTError(
                f"{path} has {image.width} x {image.height} pixels upright, but {self._path} "
                f"states {facts['width']} x {facts['height']} for image {facts['id']}; its boxes "
                "would not fit"
            )
        return DenseSample(image, str(path), objects=self._objects[facts["id"]])

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SepViTError(f"there is no file {self._path}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise SepViTError(
                f"{self._path} cannot be read as COCO's JSON ({reason_of(error)})"
            ) from None
        wanted = ("images", "annotations", "categories")
        missing = next(
            (
                key
                for key in wanted
                if not isinstance(document, dict) or not isinstance(document.get(key), list)
            ),
            None,
        )
        if missing:
            raise SepViTError(
                f"{self._path} is not a COCO file of boxes: it has no list {missing!r}"
            )
        return document

    def _by_id(self, document: dict[str, Any], key: str, field: str, kind: type) -> dict[int, Any]:
        """Return the entries of a list by their ids, each with a field of a type."""
        found: dict[int, Any] = {}
        for place, entry in enumerate(document[key]):
            number = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(number, int) or isinstance(number, bool):
                raise SepViTError(f"{self._path}: entry {place} of {key} has no integer id")
            if number in found:
                raise SepViTError(f"{self._path}: {key} has the id {number} twice")
            sides = ("width", "height") if key == "images" else ()
            if not isinstance(entry.get(field), kind) or not entry[field]:
                raise SepViTError(f"{self._path}: id {number} of {key} has no {field}")
            for side in sides:
                if not _is_integer(entry.get(side)) or entry[side] < 1:
                    raise SepViTError(f"{self._path}: image {number} has no {side} in pixels")
            found[number] = entry
        return found

    def _find_folder(self) -> Path:
        """Return the folder that all images lie in."""
        first = self._images[0]["file_name"]
        for folder in _image_folders(self._path):
            if (folder / first).is_file():
                break
        else:
            listed = ", ".join(str(folder) for folder in _image_folders(self._path))
            raise SepViTError(f"{self._path} lists {first}, which is in none of {listed}")
        for image in self._images:
            if not (folder / image["file_name"]).is_file():
                raise SepViTError(
                    f"{self._path}: there is no file {folder / image['file_name']} for image "
                    f"{image['id']}"
                )
        return folder

    def _group(self, annotations: list[Any], images: dict[int, Any]) -> dict[int, Objects]:
        """Return the boxes of each image by its id."""
        grouped: dict[int, list[tuple[list[float], int, bool, Any]]] = {id_: [] for id_ in images}
        for place, entry in enumerate(annotations):
            if not isinstance(entry, dict):
                raise SepViTError(f"{self._path}: entry {place} of annotations is not an object")
            number = entry.get("id", f"number {place}")
            image = images[self._known(entry, number, "image_id", images)]
            label = self._classes[self._known(entry, number, "category_id", self._classes)]
            box = self._box(entry, number, image)
            if box is None:
                self._left_out.append(number)
            else:
                segment = self._segment(entry, number, image) if self._segments else None
                crowd = bool(entry.get("iscrowd", 0))
                grouped[entry["image_id"]].append((box, label, crowd, segment))
        found = {}
        for id_, rows in grouped.items():
            found[id_] = Objects.of(
                [box for box, _, _, _ in rows],
                [label for _, label, _, _ in rows],
                [crowd for _, _, crowd, _ in rows],
                [segment for _, _, _, segment in rows] if self._segments else None,
                (images[id_]["height"], images[id_]["width"]),
            )
        return found

    def _known(self, entry: dict[str, Any], number: object, key: str, known: dict[int, Any]) -> int:
        value = entry.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value not in known:
            what = "image" if key == "image_id" else "category"
            raise SepViTError(
                f"{self._path}: annotation {number} is of {what} {value}, which is not listed"
            )
        return value

    def _segment(self, entry: dict[str, Any], number: object, image: Any) -> Any:
        """Return the pixels of an object: polygons, or run lengths of the image's size."""
        segment = entry.get("segmentation")
        if isinstance(segment, dict):
            size, counts = segment.get("size"), segment.get("counts")
            if size != [image["height"], image["width"]] or not isinstance(counts, (str, list)):
                raise SepViTError(
                    f"{self._path}: the segmentation of annotation {number} is not run lengths of "
                    "its image's size"
                )
            return segment
        if not isinstance(segment, list) or not segment or not all(map(_is_polygon, segment)):
            raise SepViTError(
                f"{self._path}: annotation {number} has no segmentation, of polygons or run "
                "lengths; masks are measured of files that have one for each object"
            )
        return segment

    def _box(self, entry: dict[str, Any], number: object, image: Any) -> list[float] | None:
        """Return left, top, right and bottom inside the image; None if nothing is left."""
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise SepViTError(
                f"{self._path}: the bbox of annotation {number} is not [left, top, width, height]"
            )
        left, top, width, height = map(float, box)
        if width < 0 or height < 0:
            raise SepViTError(
                f"{self._path}: the bbox of annotation {number} has a negative side; COCO's boxes "
                "are [left, top, width, height]"
            )
        right, bottom = min(left + width, image["width"]), min(top + height, image["height"])
        left, top = max(left, 0.0), max(top, 0.0)
        return [left, top, right, bottom] if right > left and bottom > top else None


def _image_folders(path: Path) -> Iterator[Path]:
    """Yield the folders where a file's images may lie."""
    stem = path.stem.removeprefix("instances_")
    yield path.parent
    yield path.parent / stem
    yield path.parent / "images"
    if path.parent.name == "annotations":
        yield path.parent.parent / stem
        yield path.parent.parent / "images" / stem
        yield path.parent.parent / "images"


def _is_polygon(value: object) -> bool:
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2:
        return False
    return all(map(_is_number, value))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
