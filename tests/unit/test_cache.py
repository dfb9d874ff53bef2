"""The cache of compiled results: by content, whole or not there, and never in the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from sepvit_edge.backends.support import cache

KEY = {"tool": "compiler 1.0", "options": {"level": 3}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sepvit-edge"


class Compiler:
    """Writes one file, and counts how often it was asked to."""

    def __init__(self, data: bytes = b"binary") -> None:
        self.data, self.runs = data, 0

    def __call__(self, folder: Path) -> None:
        self.runs += 1
        (folder / "out.bin").write_bytes(self.data)


def filled(tmp_path: Path, make: object, key: dict[str, object] | None = None) -> bytes:
    folder = tmp_path / "package"
    folder.mkdir(exist_ok=True)
    cache.cached(folder, make, key or KEY)  # type: ignore[arg-type]
    assert [file.name for file in folder.iterdir()] == ["out.bin"]
    return (folder / "out.bin").read_bytes()


def test_the_same_is_made_once(tmp_path: Path) -> None:
    make = Compiler()
    assert filled(tmp_path, make) == filled(tmp_path, make) == b"binary"
    assert make.runs == 1


def test_any_other_input_is_another_result(tmp_path: Path) -> None:
    file = tmp_path / "model"
    keys: list[dict[str, object]] = []
    for content in (b"a", b"b"):
        keys += [{"x": content}, {"x": np.frombuffer(content, np.uint8)}, {"x": content.hex()}]
    keys += [{"x": np.zeros((2, 1))}, {"x": np.zeros((1, 2))}, {"x": np.zeros((2, 1), np.int64)}]
    make = Compiler()
    for key in keys:
        filled(tmp_path, make, key)
    assert make.runs == len(keys)
    for content in (b"1", b"2"):  # a path stands for what is in the file
        file.write_bytes(content)
        filled(tmp_path, make, {"x": file})
    assert make.runs == len(keys) + 2


def test_what_was_damaged_is_made_anew(tmp_path: Path, home: Path) -> None:
    make = Compiler()
    filled(tmp_path, make)
    (kept,) = home.glob("*/out.bin")
    kept.write_bytes(b"binarx")
    assert filled(tmp_path, make) == b"binary"
    assert filled(tmp_path, make) == b"binary"
    assert make.runs == 2


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_what_failed_leaves_nothing(
    tmp_path: Path, home: Path, failure: type[BaseException]
) -> None:
    def fail(folder: Path) -> None:
        (folder / "out.bin").write_bytes(b"half")
        raise failure

    folder = tmp_path / "package"
    folder.mkdir()
    with pytest.raises(failure):
        cache.cached(folder, fail, KEY)
    assert not list(folder.iterdir())
    assert not home.exists() or not list(home.iterdir())


def test_without_a_cache_it_is_just_made(tmp_path: Path, home: Path) -> None:
    home.parent.write_text("a file where the folder should be")
    make = Compiler()
    assert filled(tmp_path, make) == filled(tmp_path, make) == b"binary"
    assert make.runs == 2


def test_fresh_makes_anew_and_keeps(tmp_path: Path) -> None:
    old, new = Compiler(b"old"), Compiler(b"new")
    filled(tmp_path, old)
    with cache.fresh():
        assert filled(tmp_path, new) == b"new"
    assert filled(tmp_path, old) == b"new"
    assert (old.runs, new.runs) == (1, 1)


def test_the_longest_unused_goes_first(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LIMIT", 2500)
    make = Compiler(bytes(1000))
    for i in range(3):
        filled(tmp_path, make, {"i": i})
        for age, index in enumerate(sorted(home.glob("*/index.json"), key=os.path.getmtime)):
            os.utime(index, (age, age))
        if i == 1:  # used again, so that another one is the oldest
            filled(tmp_path, make, {"i": 0})
    assert make.runs == 3
    filled(tmp_path, make, {"i": 0})
    assert make.runs == 3
    filled(tmp_path, make, {"i": 1})
    assert make.runs == 4


def test_arrays_come_back_as_they_were() -> None:
    arrays = [np.arange(12, dtype=np.float32).reshape(3, 4), np.array(2.5), np.zeros(0, np.uint8)]
    runs = []

    def make() -> list[np.ndarray]:
        runs.append(1)
        return arrays

    for _ in range(2):
        back = cache.cached_arrays(make, {"tool": "emulation", "pixels": np.ones(3)})
        for a, b in zip(arrays, back, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert len(runs) == 1


def test_a_full_disk_keeps_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """np.save raises an OSError without a number."""
    write = Path.write_bytes

    def full(path: Path, data: object) -> int:
        if path.suffix == ".npy":
            raise OSError(errno.ENOSPC, "no space")
        return write(path, data)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space") as failure:
        cache.cached_arrays(lambda: [np.zeros(3)], KEY)
    assert failure.value.errno == errno.ENOSPC
