"""Samples of data sets: evenly over the classes, always alike, and stated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sepvit_edge.cli.tables import images_text
from sepvit_edge.data.digits import Digits
from sepvit_edge.data.folders import ImageFolder
from sepvit_edge.data.glyphs import Glyphs
from sepvit_edge.data.sample import Dataset, Taken, Unlabelled, take_evenly
from sepvit_edge.errors import SepViTError
from sepvit_edge.pipeline.comparison import compare_everything
from sepvit_edge.pipeline.outputs import selection_of


def folder(root: Path, **counts: int) -> ImageFolder:
    """A class folder of grey images each; class i is i grey levels darker than white."""
    for i, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for j in range(count):
            Image.new("L", (4, 4), 255 - i).save(root / name / f"{j:03}.png")
    return ImageFolder(root, tuple(counts))


def classes(data: Dataset) -> Counter[int | None]:
    return Counter(data.label(i) for i in range(len(data)))


def test_a_sample_has_as_many_images_of_each_class(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", a=20, b=20, c=3, d=20)
    assert classes(take_evenly(data, 8)) == {0: 2, 1: 2, 2: 2, 3: 2}
    # three is all there is of c: the others fill up
    assert classes(take_evenly(data, 24)) == {0: 7, 1: 7, 2: 3, 3: 7}
    assert sorted(classes(take_evenly(data, 6)).values()) == [1, 1, 2, 2]
    assert len(take_evenly(data, 1000)) == len(take_evenly(data)) == 63


def test_a_sample_is_always_the_same_and_grows(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", a=20, b=20)
    names = [
        [taken[i].name for i in range(len(taken))]
        for taken in (take_evenly(data, n) for n in (6, 6, 14))
    ]
    assert names[0] == names[1] and set(names[0]) < set(names[2])
    # neither the first of each class nor in another order than the set
    assert names[0] == sorted(names[0])
    assert {Path(name).name for name in names[0][:3]} != {"000.png", "001.png", "002.png"}


@pytest.mark.parametrize(
    "data", [Digits("test"), Glyphs("calibration"), Unlabelled(Digits("test"))]
)
def test_a_label_is_known_without_the_image(data: Dataset) -> None:
    places = range(0, len(data), 37)
    assert [data.label(i) for i in places] == [data[i].label for i in places]


def test_unlabelled_images_are_taken_over_the_whole_set() -> None:
    taken = take_evenly(Unlabelled(Digits("test")), 40)
    numbers = [taken._indices[i] for i in range(40)]
    assert len(set(numbers)) == 40 and min(numbers) < 100 and max(numbers) > 300
    facts = selection_of(taken)
    assert (facts.rule, facts.seed, facts.available) == ("evenly over the set", 0, 400)


def test_a_selection_is_stated(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", a=20, b=20)
    taken = take_evenly(take_evenly(data, 30), 10)
    facts = selection_of(taken)
    assert (facts.available, facts.rule, facts.seed) == (40, "evenly over classes", 0)
    assert facts.class_rule == "labels"
    text = images_text(len(taken), taken.name, facts)
    assert text == "10 of 40 images of data, evenly over classes"
    whole = selection_of(take_evenly(data))
    assert (whole.rule, whole.seed) == ("all", None)
    assert images_text(40, "data", whole) == "40 images of data"
    ordered = selection_of(take_evenly(ImageFolder(tmp_path / "data", ("x", "y"))))
    assert images_text(40, "data", ordered) == "40 images of data; classes by sorted order"


def test_only_the_images_that_are_taken_are_read(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", a=20, b=20)
    taken = take_evenly(data, 4)
    wanted = {Path(taken[i].name) for i in range(4)}
    for path in (tmp_path / "data").rglob("*.png"):
        if path not in wanted:
            path.write_bytes(b"damaged")
    assert [np.asarray(taken[i].image)[0, 0] for i in range(4)] == [255, 255, 254, 254]
    assert isinstance(taken, Taken)


def test_models_of_different_inputs_are_not_compared() -> None:
    from dataclasses import replace

    from helpers import MINI, jittered

    one = jittered(MINI, 2, 32)
    data = Digits("test")

    def refusal(**changes: object) -> str:
        other = jittered(MINI, 2, 32)
        other.config = replace(other.config, **changes)
        with pytest.raises(SepViTError) as error:
            compare_everything([("a", one), ("b", other)], data, images=4, only=["onnxruntime"])
        return str(error.value)

    assert "image size: 32 of a, 64 of b" in refusal(image_size=64)
    assert "classes: 2 of a, 3 of b" in refusal(num_classes=3, labels=("0", "1", "2"))
    assert "class 0: '0' of a, '1' of b" in refusal(labels=("1", "0"))
    rule = replace(one.config.preprocessing, crop=1.0)
    assert "crop: 0.875 of a, 1.0 of b" in refusal(preprocessing=rule)
    rule = replace(one.config.preprocessing, mean=(0.5, 0.5, 0.5))
    assert "mean: " in refusal(preprocessing=rule)
