"""Folders that appear whole or not at all, and files inside packages."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import HANGS

from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package
from sepvit_edge.package.replacing import check_destination, replacing


def write(destination: Path, text: str, force: bool = True) -> None:
    with replacing(destination, force) as folder:
        (folder / "manifest.json").write_text(text)


def content(package: Path) -> str:
    return (package / "manifest.json").read_text()


_WRITER = """
import sys
import time
from pathlib import Path
from sepvit_edge.package.replacing import replacing
with replacing(Path(sys.argv[1]), True) as folder:
    (folder / "manifest.json").write_text("the other one")
    print("writing", flush=True)
    sys.stdin.read()
"""


def writer(destination: Path) -> subprocess.Popen[str]:
    """Start a process that writes a package until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(destination)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def test_one_process_at_a_time_writes_a_package(tmp_path: Path) -> None:
    other = writer(tmp_path / "p")
    with pytest.raises(SepViTError, match=r"another process is writing .*/p; wait"):
        write(tmp_path / "p", "mine")
    write(tmp_path / "q", "beside it")
    other.communicate("", HANGS)
    assert other.returncode == 0 and content(tmp_path / "p") == "the other one"
    write(tmp_path / "p", "mine")
    assert content(tmp_path / "p") == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p", "q"]


def test_what_a_killed_process_left_is_removed_whatever_its_number(tmp_path: Path) -> None:
    """In containers every export can be process 1: the number of the dead is that of the living."""
    other = writer(tmp_path / "p")
    other.send_signal(signal.SIGKILL)
    other.wait(HANGS)
    (tmp_path / f".p.partial-{os.getpid()}").mkdir()  # of an earlier version
    assert len(list(tmp_path.iterdir())) == 2
    write(tmp_path / "p", "mine", force=False)
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_another_host_is_writing_on_a_disk_whose_locks_hold_on_one_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / ".p.partial"
    (room / "package").mkdir(parents=True)
    (room / "host").write_text("another")
    with pytest.raises(SepViTError, match=r"another host is writing .*/p, or has crashed"):
        write(tmp_path / "p", "mine")
    assert (room / "package").is_dir()
    long_ago = os.stat(room / "host").st_mtime - 301
    os.utime(room / "host", (long_ago, long_ago))
    write(tmp_path / "p", "mine")
    assert content(tmp_path / "p") == "mine" and [p.name for p in tmp_path.iterdir()] == ["p"]

    monkeypatch.setattr("sepvit_edge.package.replacing._SIGN_S", 0.01)
    with replacing(tmp_path / "p", True) as folder:
        (folder / "manifest.json").write_text("slow")
        os.utime(room / "host", (long_ago, long_ago))
        while os.stat(room / "host").st_mtime == long_ago:
            time.sleep(0.01)
    assert content(tmp_path / "p") == "slow"


def test_a_disk_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("sepvit_edge.package.replacing.FileLock.acquire", fail)
    with pytest.raises(SepViTError, match="cannot lock files"):
        write(tmp_path / "p", "mine")


@pytest.mark.parametrize("place", [".p.partial/previous", ".p.previous-1"])
def test_a_package_that_was_moved_away_comes_back(tmp_path: Path, place: str) -> None:
    write(tmp_path / "kept", "the old one")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "kept").rename(tmp_path / place)
    with pytest.raises(RuntimeError), replacing(tmp_path / "p", True):
        raise RuntimeError
    assert content(tmp_path / "p") == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_the_old_package_comes_back_if_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write(tmp_path / "p", "the old one")
    rename = os.rename

    def failing(source: Path, destination: Path) -> None:
        if Path(source).name == "package":
            raise error
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(type(error)):
        write(tmp_path / "p", "the new one")
    assert content(tmp_path / "p") == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_appears_meanwhile_is_kept(tmp_path: Path, force: bool) -> None:
    sentence = "is not a SepViT-Edge package" if force else "exists; give --force"
    with pytest.raises(SepViTError, match=sentence), replacing(tmp_path / "p", force):
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "photo.jpg").write_text("precious")
    assert [p.name for p in tmp_path.iterdir()] == ["p"]
    assert (tmp_path / "p" / "photo.jpg").read_text() == "precious"


@pytest.mark.parametrize(
    "name",
    ["file/x", "file/x/y", "/dev/null/x", "/proc/x", "n" * 247, "n" * 256, "a\0b", "n/" * 3000],
)
def test_a_destination_that_cannot_be_made_is_refused_before_the_work(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SepViTError, match=r"cannot be written: .*; give another --output"):
        check_destination(tmp_path / name, False)
    with pytest.raises(SepViTError), replacing(tmp_path / name, False):
        raise AssertionError("unreachable")


def test_a_file_in_the_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for below in ("x", "x/y"):
        with pytest.raises(SepViTError, match=r"written: .*/file(/x)? is not a folder; give"):
            check_destination(tmp_path / "file" / below, False)


def test_a_long_name_that_fits_is_written(tmp_path: Path) -> None:
    write(tmp_path / ("n" * 245), "long")
    assert content(tmp_path / ("n" * 245)) == "long"


@pytest.mark.parametrize("name", [".", "", "..", "/", "x/.."])
def test_the_working_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(tmp_path / "p", "the old one")
    monkeypatch.chdir(tmp_path / "p")
    with pytest.raises(SepViTError, match="is the working folder or above it"):
        check_destination(Path(name), True)
    assert content(tmp_path / "p") == "the old one"


def odd_manifest(kind: str, path: Path) -> None:
    if kind == "nested":
        path.write_text("[" * 100_000)
    elif kind == "nested objects":
        path.write_text('{"a":' * 100_000)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "outside":
        (path.parents[1] / "other.json").write_text("{}")
        path.symlink_to("../other.json")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "large":
        path.touch()
        os.truncate(path, 1 << 40)
    elif kind == "twice":
        path.write_text('{"schema_version": "2.0", "schema_version": "2.0"}')
    else:
        path.write_bytes(kind.encode("latin-1"))


@pytest.mark.parametrize(
    "kind",
    [
        *("nested", "nested objects", "folder", "loop", "pipe", "device", "outside", "dangling"),
        *(
            "large",
            "twice",
            "",
            "[]",
            "null",
            "1",
            '"x"',
            "{}",
            "\xff\xfe",
            '{"schema_version": []}',
        ),
    ],
)
def test_manifests_of_any_shape_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "p").mkdir()
    odd_manifest(kind, tmp_path / "p" / "manifest.json")
    with pytest.raises(SepViTError) as refusal:
        Package(tmp_path / "p")
    assert "\n" not in str(refusal.value) and "manifest.json" in str(refusal.value)


def test_a_link_inside_a_package_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(json.dumps({"schema_version": "99.0"}))
    (tmp_path / "manifest.json").symlink_to("real.json")
    with pytest.raises(SepViTError, match="has manifest version 99"):
        Package(tmp_path)
