"""Folders of images: which are classes, which class each is, and which files are read."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sepvit_edge.data.choose import open_dataset
from sepvit_edge.data.classes import (
    BY_FILE,
    BY_FORM,
    BY_LABEL,
    BY_NUMBER,
    BY_ORDER,
    match_folders,
    read_pairs,
)
from sepvit_edge.data.folders import ImageFolder, class_folders, split_folders
from sepvit_edge.errors import SepViTError

PETS = ("dog", "cat", "bird")


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), 7).save(path, "PNG")
    return path


def tree(root: Path, *folders: str) -> Path:
    """A folder with an image in each of some folders."""
    for name in folders:
        image(root / name / "0.png")
    return root


@pytest.mark.parametrize(
    ("folders", "labels", "classes", "rule"),
    [
        (["bird", "cat", "dog"], PETS, (2, 1, 0), BY_LABEL),
        (["bird", "dog"], PETS, (2, 0), BY_LABEL),  # some of the classes
        (["Cat", "DOG"], PETS, (1, 0), BY_FORM),
        (["cat ", "dog"], PETS, (1, 0), BY_FORM),
        (["hot_dog", "ice  cream"], ("ice cream", "hot dog"), (1, 0), BY_FORM),
        (["t-shirt"], ("T shirt", "t-rex"), (0,), BY_FORM),
        ([nfd("café"), nfd("cafz")], ("cafz", "café"), (1, 0), BY_FORM),
        (["café"], (nfd("café"), "cafz"), (0,), BY_FORM),
        (["strasse"], ("gasse", "Straße"), (1,), BY_FORM),
        # A and a are two labels, so the case decides, but a blank does not
        (["A ", "a"], ("a", "A"), (1, 0), BY_FORM),
        (["n01", "n02", "n03"], PETS, (0, 1, 2), BY_ORDER),
        # numbers in order of the numbers, and not 0, 1, 10, 11, 2
        (
            [str(i) for i in (0, 1, 10, 11, *range(2, 10))],
            tuple("abcdefghijkl"),
            (0, 1, 10, 11, *range(2, 10)),
            BY_NUMBER,
        ),
        (["00", "01"], ("zero", "one"), (0, 1), BY_NUMBER),
    ],
)
def test_the_class_of_a_folder(
    folders: list[str], labels: tuple[str, ...], classes: tuple[int, ...], rule: str
) -> None:
    matching = match_folders(folders, labels)
    assert (matching.classes, matching.rule) == (classes, rule)
    assert bool(matching.note) == (rule in (BY_NUMBER, BY_ORDER))


def test_sorted_order_is_said_with_its_pairs() -> None:
    note = match_folders(["n02", "n01"], ("cat", "dog"), where="val").note
    assert "n01 = cat, n02 = dog" in note and "val" in note and "--classes" in note


@pytest.mark.parametrize(
    ("folders", "labels", "sentence"),
    [
        (["bird", "cat"], ("cat", "dog"), "'bird' of the data is not named after a label"),
        (["bird", "cat"], ("cat", "dog"), "while folder 'cat' is"),
        (["bird", "cat"], ("cat", "dog"), "labels without a folder: dog"),
        (["a", "b"], PETS, "2 folders, 3 classes"),
        (["Cat", "cat"], ("cat", "dog"), "'Cat' and 'cat' of the data are both named after"),
        # one name that two labels share in another case
        (["Polish ", "x"], ("POLISH", "polish"), "--classes FILE"),
        # sorted order would call the dogs cats
        (["kind_dogs", "some_cats"], ("cats", "dogs"), "would be 'cats' and not 'dogs'"),
        # numbers of a model without names, and one name
        ([*"01245678", "9", "three"], tuple("0123456789"), "'three' of the data is not"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    folders: list[str], labels: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(SepViTError, match="--classes FILE") as refusal:
        match_folders(folders, labels)
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)


def test_long_lists_are_shortened() -> None:
    labels = tuple(f"label {i}" for i in range(1000))
    with pytest.raises(SepViTError) as refusal:
        match_folders([f"x{i}" for i in range(500)], labels)
    assert "and 492 more" in str(refusal.value) and "and 992 more" in str(refusal.value)


def test_numbers_stand_for_the_classes_of_a_model_without_names() -> None:
    twelve = tuple(str(i) for i in range(12))
    matching = match_folders(sorted(twelve), twelve)
    assert matching.classes == (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)
    assert matching.rule == BY_NUMBER and "no names" in matching.note
    # names of numbers are no accident where all are there
    assert match_folders(list("0123456789"), tuple("0123456789")).rule == BY_LABEL
    # ten of a thousand might be: it is said
    some = match_folders([str(i) for i in range(1, 11)], tuple(str(i) for i in range(1000)))
    assert some.classes == tuple(range(1, 11)) and some.note


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique=True))
def test_labels_always_name_their_own_folders(labels: list[str]) -> None:
    assert match_folders(labels[::-1], labels).classes == tuple(range(len(labels)))[::-1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pairs.json", '{"n1": "cat", "n2": "dog"}'),
        ("pairs.tsv", "n1\tcat\r\nn2\tdog\r\n"),
        ("pairs.csv", 'n1,"cat"\nn2,dog\n\n'),
        ("excel.csv", "\ufefffolder;label\nn1;cat\nn2;Dog\n"),
    ],
)
def test_a_file_of_classes_pairs_folders_with_labels(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    root = tree(tmp_path / "data", "n1", "n2", "bird")
    data = open_dataset(root, PETS, classes=tmp_path / name)
    assert [data[i].label for i in range(3)] == [2, 1, 0]  # bird, n1, n2
    assert data.class_rule == BY_FILE  # type: ignore[attr-defined]


def test_two_folders_may_be_one_class_by_a_file(tmp_path: Path) -> None:
    assert match_folders(["tabby", "tiger"], PETS, {"tabby": "cat", "tiger": "cat"}).classes == (
        1,
        1,
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("n1,cat\nn1,dog\n", "two labels, 'cat' and 'dog'"),
        ("n1 cat\n", "neither a JSON object"),
        ('["cat"]', "neither a JSON object"),
        ('{"n1": 3}', "neither a JSON object"),
        ("", "neither a JSON object"),
        ("n1,wolf\n", "the label 'wolf', which the model does not have; its labels: dog, cat"),
        ("n2,cat\n", "no line for folder 'n1'"),
    ],
)
def test_a_wrong_file_of_classes_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "pairs.txt").write_text(content)
    with pytest.raises(SepViTError, match="file of classes") as refusal:
        match_folders(["n1"], PETS, read_pairs(tmp_path / "pairs.txt"))
    assert sentence in str(refusal.value)


def test_a_file_of_classes_is_for_folders(tmp_path: Path) -> None:
    with pytest.raises(SepViTError, match="leave it out with digits"):
        open_dataset("digits", tuple("0123456789"), classes="pairs.csv")
    with pytest.raises(SepViTError, match="cannot be read"):
        read_pairs(tmp_path / "none.csv")


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "VALID"), ("training", "testing")])
def test_splits_are_not_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    root = tree(tmp_path, *(f"{split}/{pet}" for split in names for pet in ("cat", "dog")))
    (tmp_path / "extra").mkdir()
    for refused in (
        lambda: ImageFolder(root, ("a", "b")),
        lambda: ImageFolder(root),
        lambda: class_folders(root),
    ):
        with pytest.raises(SepViTError, match="are splits of a data set") as refusal:
            refused()
        assert f"give one of them, for example {root / names[0]}" in str(refusal.value)
    assert split_folders(root)["train"] == root / names[0]
    assert class_folders(root / names[0]) == ("cat", "dog")


def test_splits_beside_other_folders_are_found(tmp_path: Path) -> None:
    tree(tmp_path, "train/cat", "train/dog", "test/cat", "docs")
    assert split_folders(tmp_path) == {"test": tmp_path / "test", "train": tmp_path / "train"}
    image(tmp_path / "Testing" / "cat" / "0.png")
    with pytest.raises(SepViTError, match="two folders for one split"):
        split_folders(tmp_path)


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    root = tree(tmp_path / "a", "blank", "test")
    assert split_folders(root) == {} and class_folders(root) == ("blank", "test")
    assert len(ImageFolder(root, ("blank", "test"))) == 2
    # both classes are called like splits, and the model knows them
    assert len(ImageFolder(tree(tmp_path / "b", "test", "train"), ("train", "test"))) == 2


def test_folders_of_systems_and_empty_ones_are_not_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = (
        "@eaDir",
        "__MACOSX",
        "lost+found",
        "$RECYCLE.BIN",
        "System Volume Information",
        "#recycle",
        ".cache",
        "Thumbs",
    )
    root = tree(tmp_path, *PETS, *service)
    (root / "empty").mkdir()
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("x")
    image(root / "cat" / "@eaDir" / "thumb.png")
    assert class_folders(root) == ("bird", "cat", "dog")
    data = ImageFolder(root, PETS)
    assert [data[i].label for i in range(len(data))] == [2, 1, 0]
    assert "folders without images left out (empty, notes)" in caplog.text
    assert "@eaDir" in caplog.text
    # unless a class has the name
    assert len(ImageFolder(root, (*PETS, "Thumbs"))) == 4


def test_another_level_of_the_tree_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "pets/cat", "pets/dog")
    with pytest.raises(SepViTError, match=r"one level deeper .* give .*photos/pets"):
        ImageFolder(root, ("cat", "dog"))
    with pytest.raises(SepViTError, match=r"one folder with images.* give .*photos/pets"):
        class_folders(root)
    with pytest.raises(SepViTError, match=r"one class: give the folder above, .*pets"):
        ImageFolder(root / "pets" / "cat", ("cat", "dog"))
    with pytest.raises(SepViTError, match="no folders"):
        class_folders(root / "pets" / "cat")
    tree(root, "plants/rose", "plants/tulip")
    with pytest.raises(SepViTError, match=r"look like data sets.* give one of them"):
        class_folders(root)
    # two folders and two classes, but neither the names nor the level fit
    with pytest.raises(SepViTError, match="one level deeper"):
        ImageFolder(root, ("cat", "dog"))


def test_training_needs_two_classes(tmp_path: Path) -> None:
    with pytest.raises(SepViTError, match="one folder with images, cat; training needs two"):
        class_folders(tree(tmp_path, "cat"))


def test_a_class_may_be_stored_in_pieces(tmp_path: Path) -> None:
    pieces = ("cat/shard0", "cat/shard1", "dog/shard0", "dog/shard1")
    assert class_folders(tree(tmp_path, *pieces)) == ("cat", "dog")


def test_names_of_new_classes_have_one_unicode_form(tmp_path: Path) -> None:
    names = class_folders(tree(tmp_path, nfd("café"), "tea"))
    assert names == ("café", "tea")
    assert len(ImageFolder(tmp_path, names)) == 2


def test_one_name_in_two_unicode_forms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SepViTError, match="two folders named café"):
        class_folders(tree(tmp_path, "café", nfd("café"), "tea"))
