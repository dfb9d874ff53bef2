"""Labels: from files of every kind that people write, in checkpoints, and in packages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TESTS
from hypothesis import given
from hypothesis import strategies as st

from sepvit_edge.checkpoints.labels import read_labels
from sepvit_edge.config.recipe import find_recipe, load_recipe, recipes
from sepvit_edge.errors import SepViTError
from sepvit_edge.files import file_sha256
from sepvit_edge.model.labels import check_labels
from sepvit_edge.model.variants import ModelConfig
from sepvit_edge.package.folder import Package

TWO = ("zero", "one")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "zero\none\n"),
        ("bom.txt", "\ufeffzero\r\none\r\n"),
        ("old-mac.txt", "zero\rone"),
        ("blank lines.txt", "\n zero \n\none\n\n"),
        ("list.json", '["zero", "one"]'),
        ("object.json", '\ufeff{"0": "zero",\n"1": "one"}'),
        ("any order.json", '{"1": "one", "0": "zero"}'),
        ("numbers.json", '{"one": 1, "zero": 0}'),
        ("imagenet.json", '{"0": ["n01", "zero"], "1": ["n02", "one"]}'),
        ("json.txt", '{"0":"zero",\n"1":"one"}'),
        ("column.csv", '"zero"\none\n'),
    ],
)
def test_labels_are_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_labels(tmp_path / name) == TWO


def test_labels_keep_commas_and_quotes(tmp_path: Path) -> None:
    names = ("tench, Tinca tinca", 'the "king"', "12", "[background]", "0 degrees: cold")
    (tmp_path / "labels.txt").write_text("\n".join(names))
    assert read_labels(tmp_path / "labels.txt") == names


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"zero\none\nzero\n", "has the label 'zero' twice, for classes 0 and 2"),
        ("a.json", b'["zero", "zero"]', "twice"),
        ("a.txt", "zero\nne\u2028xt\n".encode(), r"label 1 is 'ne\u2028xt', with a line break"),
        ("a.txt", "zero\nne\x85xt\n".encode(), "with a line break"),
        ("a.txt", b"zero\nne\x0bxt\n", "with a line break"),
        ("a.txt", b"zero\tone\ntwo\tthree\n", "with a line break or another control character"),
        ("a.json", b'["zero", "o\\nne"]', "with a line break"),
        ("a.json", b'["zero", " "]', "label 1 is empty"),
        ("a.txt", "zero\n\ufeffone\n".encode(), "control character"),
        ("a.json", b'{"0": "zero"', "not valid JSON"),
        ("a.json", b'{"0": "zero", "2": "two"}', "every number of a class"),
        ("a.json", b'{"0": "zero", "0": "two"}', "every number of a class"),
        ("a.json", b'{"names": ["zero", "one"]}', "every number of a class"),
        ("a.json", b'[{"id": 0, "name": "zero"}]', "JSON of another form"),
        ("a.json", b'"zero"', "JSON of another form"),
        ("a.json", b"[0, 1]", "JSON of another form"),
        ("a.csv", b"0,zero\n1,one\n", "a table of several columns"),
        ("a.csv", b"0;zero\n1;one\n", "a table of several columns"),
        ("a.txt", b"0,zero\n1,one\n", "every line of"),
        ("a.txt", b"0: zero\n1: one\n", "starts with a number"),
        ("a.txt", b"- zero\n- one\n", "starts with '- '"),
        ("a.txt", b'"zero",\n"one",\n', "ends with a comma"),
        ("a.txt", b"'zero'\n'one'\n", "is quoted"),
        ("a.yaml", b"names: [zero, one]\n", "not read from .yaml files"),
        ("a.txt", "zero\none\n".encode("utf-16"), "not UTF-8"),
        ("a.txt", b"\n", "is empty"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SepViTError, match="a\\.") as refusal:
        read_labels(tmp_path / name)
    assert sentence in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "character",
    [
        "\n",
        "\r",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x1f",
        "\x85",
        "\u2028",
        "\u2029",
        "\t",
        "\x00",
        "\x7f",
        "\ud800",
    ],
)
def test_a_checkpoints_labels_are_lines_of_text(character: str) -> None:
    with pytest.raises(SepViTError, match="label 1 is"):
        ModelConfig("lite", 2, labels=("zero", f"o{character}ne"))


def test_a_checkpoints_labels_are_texts() -> None:
    for wrong in ("", "  ", 1, None):
        with pytest.raises(SepViTError, match="label 1 is"):
            ModelConfig("lite", 2, labels=("zero", wrong))  # type: ignore[arg-type]
    odd = ("日本", "👩‍🔬", "a, b", "naïve")
    assert ModelConfig("lite", 4, labels=odd).labels == odd


@given(st.text(min_size=1))
def test_labels_that_are_accepted_are_one_line_each(label: str) -> None:
    try:
        check_labels([label])
    except SepViTError:
        return
    assert len(label.splitlines()) == 1 and label.encode()


@pytest.fixture
def relabelled(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write other labels into a copy of the vectors' package of four classes."""
    from make_vectors import apply_edits

    def write(labels: bytes) -> Path:
        folder = Path(shutil.copytree(TESTS / "vectors" / "package", tmp_path / "package"))
        old = folder / "labels.txt"
        before = file_sha256(old), old.stat().st_size
        old.write_bytes(labels)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert {"path": "labels.txt", "sha256": before[0], "size": before[1]} in manifest["files"]
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        text = text.replace(before[0], file_sha256(old))
        text = text.replace(f'"size": {before[1]}', f'"size": {len(labels)}')
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        apply_edits(folder, [{"op": "seal"}])
        return folder

    return write


def test_a_packages_labels_end_at_line_feeds_alone(relabelled: Callable[[bytes], Path]) -> None:
    odd = ("a\u2028b", "c\x85d", "e\x0cf\x1c", "g")
    assert Package(relabelled("\n".join(odd).encode() + b"\n")).labels == odd


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_package_has_a_label_for_each_class(
    relabelled: Callable[[bytes], Path], count: int
) -> None:
    with pytest.raises(SepViTError, match=f"{count} labels for 4 classes"):
        Package(relabelled(b"x\n" * count))


def test_toml_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    text = recipes()["openvino-int8"].read_text(encoding="utf-8")
    own = tmp_path / "own.toml"
    own.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_recipe(own) == find_recipe("openvino", "int8")
