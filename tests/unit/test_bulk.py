"""Many images: read on all cores, in order, and continued where a run was ended."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from helpers import HANGS, TESTS, Runner, random_pixels
from PIL import Image

from sepvit_edge.errors import SepViTError
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline import bulk
from sepvit_edge.pipeline.bulk import classify_files
from sepvit_edge.pipeline.reading import run_here
from sepvit_edge.pipeline.saving import check_save, growing_table

TINY = TESTS / "vectors" / "package"  # for ONNX Runtime: it tells an image's mean colour
BROKEN = 5


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """40 images of different sizes and colours, of which one is damaged."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(random_pixels(40, 30)):
        Image.fromarray(pixels).resize((9 + i, 30)).save(folder / f"{i:02}.png")
    (folder / f"{BROKEN:02}.png").write_bytes(b"\x89PNG")
    return sorted(folder.iterdir())


def test_the_order_and_the_results_do_not_depend_on_the_threads(images: list[Path]) -> None:
    pytest.importorskip("onnxruntime")
    session = open_package(TINY)
    found = list(classify_files(session, images, 2, partial(run_here, readers=1)))
    assert [each.image for each in found] == images
    assert [bool(each.error) for each in found] == [i == BROKEN for i in range(40)]
    assert "05.png" in found[BROKEN].error
    assert list(classify_files(session, images, 2, partial(run_here, readers=7))) == found
    for each in (found[0], found[39]):
        logits = session.run(each.image)[0].astype(np.float64)
        shares = np.exp(logits) / np.exp(logits).sum()
        (label, share), second = each.classes
        assert label == session.package.labels[logits.argmax()]
        assert share == pytest.approx(shares.max()) and share >= second[1]


def test_few_images_are_in_memory(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    session, read = open_package(TINY), []
    real = session.preprocess
    monkeypatch.setattr(session, "preprocess", lambda path: (read.append(path), real(path))[1])
    many, two = images[:1] * 10_000, partial(run_here, readers=2)
    for taken, _ in enumerate(islice(classify_files(session, many, 1, two), 500), 1):
        assert len(read) <= taken + 5 * bulk._CHUNK


def test_results_are_saved_and_broken_images_listed(
    images: list[Path], tmp_path: Path, run_command: Runner
) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "found.csv"
    done = run_command("predict", TINY, images[0].parent, "--top", 9, "--save", path, "--json")
    told = json.loads(done.out)
    assert done.status == 2 and "1 of 40 images could not be classified" in done.err
    assert told["images"] == 40 and [b["image"] for b in told["broken"]] == [str(images[BROKEN])]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == list(map(str, images))
    assert list(rows[0]) == ["image", *(f"{n}_{i}" for i in range(1, 5)
                             for n in ("class", "probability")), "error"]  # fmt: skip
    assert rows[BROKEN]["class_1"] == "" and "05.png" in rows[BROKEN]["error"]
    shares = [sum(float(r[f"probability_{i}"]) for i in range(1, 5)) for r in rows if r["class_1"]]
    assert shares == pytest.approx([1] * 39)
    assert {p.name for p in tmp_path.iterdir()} == {"images", "found.csv"}
    shown = run_command("predict", TINY, *images[:2], "--save", path)
    assert shown.status == 0 and "images per second" in shown.out


_KILLED = """
import os, signal, sys
from sepvit_edge.pipeline import saving
# A shell that starts the tests in the background ignores it, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
add = saving.GrowingTable.add
def counted(table, row):
    add(table, row)
    if row[0].endswith("23.png"):
        os.write(table._file.fileno(), b"half a row,0.12")
        os.kill(os.getpid(), int(sys.argv.pop()))
saving.GrowingTable.add = counted
from sepvit_edge.predict import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_continues_with_the_same_result(
    number: int, images: list[Path], tmp_path: Path, run_command: Runner
) -> None:
    pytest.importorskip("onnxruntime")
    whole, path = tmp_path / "whole.csv", tmp_path / "found.csv"
    options = [TINY, images[0].parent, "--top", 2, "--threads", 1, "--save"]
    assert run_command("predict", *options, whole).status == 2
    command = [sys.executable, "-c", _KILLED, *map(str, options), str(path), str(int(number))]
    where = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    killed = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, env=where)
    assert killed.returncode == (-9 if number == signal.SIGKILL else 130), killed.stderr
    if number == signal.SIGINT:
        assert "repeat the command to continue" in killed.stderr
    assert not path.exists()
    done = run_command("predict", *options, path)
    # Long paths are wrapped.
    said = f"{path} is continued: 24 of 40 images are there".replace(" ", "")
    assert done.status == 2 and said in "".join(done.err.split())
    assert path.read_bytes() == whole.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"images", "found.csv", "whole.csv"}


def table(path: Path, keys: list[str], facts: int = 1, stop: int = 99) -> int:
    """Write rows until one; return how many were kept before."""
    with growing_table(path, {"facts": facts}, ["image", "class", "probability_1"], keys) as rows:
        kept = rows.kept
        for i, key in enumerate(keys[kept:], kept):
            if i == stop:
                raise KeyError
            rows.add([key, f'a "b",\n{i}', i / 7])
    return kept


def test_only_whole_rows_of_the_same_inputs_are_continued(tmp_path: Path) -> None:
    path, keys = tmp_path / "t.csv", ["a", "b\n,", "caf\udce9", '"d', "e"]
    partial = tmp_path / ".t.csv.partial"
    table(tmp_path / "whole.csv", keys)
    whole = (tmp_path / "whole.csv").read_bytes()
    assert b"caf\xe9" in whole

    def begin() -> bytes:
        path.unlink(missing_ok=True)
        with pytest.raises(KeyError):
            table(path, keys, stop=4)
        assert not path.exists()
        return partial.read_bytes()

    begun = begin()
    for cut in range(0, len(begun), 3):
        partial.write_bytes(begun[:cut])
        assert table(path, keys) <= 4 and path.read_bytes() == whole, cut
    begin()
    assert table(path, keys) == 4 and path.read_bytes() == whole
    for other in (["a", "x", *keys[2:]], ["b", *keys], keys[:2]):
        begin()
        kept = table(path, other)
        assert kept == {"a": 1, "b": 0}[other[0]] if len(other) > 2 else kept == 2
    begin()
    assert table(path, keys, facts=2) == 0
    begin()
    partial.write_bytes(partial.read_bytes() + b"\0" * 64 + b"\n")
    assert table(path, keys) == 4 and path.read_bytes() == whole
    assert not partial.exists()


def test_one_process_at_a_time_writes_a_table(tmp_path: Path) -> None:
    another = pytest.raises(SepViTError, match="another process is writing")
    with growing_table(tmp_path / "t.csv", {}, ["image"], []), another:
        table(tmp_path / "t.csv", ["a"])
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_a_place_that_cannot_be_is_refused_before_the_work(tmp_path: Path) -> None:
    for name, sentence in (
        ("t.txt", "must end with .csv or .parquet"),
        ("no/t.csv", "does not exist; create it"),
        ("n" * 300 + ".csv", "cannot be written"),
    ):
        with pytest.raises(SepViTError, match=sentence):
            check_save(tmp_path / name)


def test_parquet_holds_the_same(images: list[Path], tmp_path: Path, run_command: Runner) -> None:
    pytest.importorskip("onnxruntime")
    parquet = pytest.importorskip("pyarrow.parquet")
    options = [TINY, images[0].parent, "--top", 1, "--save"]
    for name in ("t.csv", "t.parquet"):
        assert run_command("predict", *options, tmp_path / name).status == 2
    columns = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(columns) == list(rows[0]) and columns["image"] == [r["image"] for r in rows]
    assert columns["probability_1"][0] == float(rows[0]["probability_1"])
    assert columns["probability_1"][BROKEN] is None


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """24 images of 6 colours, a folder each; 2 are damaged."""
    from sepvit_edge.package.folder import Package

    root = tmp_path / "tree"
    for label, colour in zip(Package(TINY).labels, ("red", "lime", "blue", "grey"), strict=True):
        (root / label).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (20 + i, 20), colour).save(root / label / f"{i}.png")
    for path in (root / "red" / "0.png", root / "blue" / "5.png"):
        path.write_bytes(b"damaged")
    return root


def test_an_evaluation_leaves_broken_images_out_and_counts_them(
    tree: Path, tmp_path: Path, run_command: Runner
) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "found.csv"
    done = run_command("evaluate", TINY, "--data", tree, "--save", path, "--json")
    told = json.loads(done.out)
    assert done.status == 2 and "2 of 24 images" in done.err
    assert told["accuracy"]["images"] == 22 and told["accuracy"]["top1"] == 1
    assert [name in said for name, said in zip(("5.png", "0.png"), told["broken"], strict=True)]
    assert told["selection"]["left_out"] == {"damaged": 2}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 22 and all(row["class"] == row["class_1"] for row in rows)
    assert all(row["probability_1"] == row["probability_of_class"] for row in rows)
    assert all(Path(row["image"]).parent.name == row["class"] for row in rows)
    for broken in tree.glob("*/*"):
        broken.write_bytes(b"damaged")
    none = run_command("evaluate", TINY, "--data", tree)
    assert none.status == 2 and "none of the 24 images" in none.err


def test_an_evaluation_that_ended_early_continues_with_the_same_result(
    tree: Path, tmp_path: Path, run_command: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from sepvit_edge.package.session import PackageSession

    (tmp_path / "saved").mkdir()
    whole = run_command("evaluate", TINY, "--data", tree, "--save", tmp_path / "w.csv", "--json")
    path, real, batches = tmp_path / "saved" / "found.csv", PackageSession.run_pixels, []
    arguments = ["evaluate", TINY, "--data", tree, "--save", path, "--json"]

    def stopping(session: PackageSession, pixels: np.ndarray) -> list[np.ndarray]:
        batches.append(len(pixels))
        if len(batches) == 2:
            raise SepViTError("stopped")
        return real(session, pixels)

    monkeypatch.setattr(PackageSession, "run_pixels", stopping)
    assert "stopped" in run_command(*arguments).err and not path.exists()
    with (tmp_path / "saved" / ".found.csv.logits").open("ab") as file:
        file.write(b"half a batch" * 9)
    del batches[:]

    def counting(session: PackageSession, pixels: np.ndarray) -> list[np.ndarray]:
        batches.append(len(pixels))
        return real(session, pixels)

    monkeypatch.setattr(PackageSession, "run_pixels", counting)
    done = run_command(*arguments)
    assert json.loads(done.out) == json.loads(whole.out) and "images were continued" in done.err
    assert path.read_bytes() == (tmp_path / "w.csv").read_bytes()
    assert [p.name for p in (tmp_path / "saved").iterdir()] == ["found.csv"]
    first = 15  # of the 16 images of a batch, one is damaged
    assert batches == [22 - first]
