"""Native libraries on devices with memory pages of 16 KB."""

from __future__ import annotations

import importlib.util
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY

_SPEC = importlib.util.spec_from_file_location("pages", REPOSITORY / "scripts/check_pages.py")
assert _SPEC is not None and _SPEC.loader is not None
pages: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pages)


def library(*alignments: int) -> bytes:
    """An ELF header with a segment to load for each alignment, and one that is not loaded."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, len(alignments) + 1)
    segments = b"".join(
        struct.pack("<II6Q", kind, 0, 0, 0, 0, 0, 0, aligned)
        for kind, aligned in [(4, 4), *((1, aligned) for aligned in alignments)]
    )
    return bytes(header) + segments


@pytest.mark.parametrize(
    ("alignments", "smallest"), [((4096,), 4096), ((65536, 16384), 16384), ((16384, 4096), 4096)]
)
def test_the_smallest_alignment_counts(alignments: tuple[int, ...], smallest: int) -> None:
    assert pages.alignment(library(*alignments)) == smallest


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "not a 64-bit"), (b"\x7fELF\x01\x01" + bytes(64), "not a 64-bit"), (library(), "load")],
)
def test_what_is_not_a_library_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pages.alignment(data)


def test_libraries_in_an_apk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    apk = tmp_path / "app.apk"

    def write(aligned: int, pad: int) -> list[str]:
        with zipfile.ZipFile(apk, "w") as archive:
            archive.writestr("lib/armeabi-v7a/libold.so", b"32 bits keep pages of 4 KB")
            name = "lib/arm64-v8a/libnew.so"
            before = sum(30 + len(e.filename) + e.file_size for e in archive.infolist())
            entry = zipfile.ZipInfo(name)
            fill = (-(before + 30 + len(name)) - 4) % 16384 + pad
            entry.extra = struct.pack("<HH", 0xFFFF, fill) + bytes(fill)
            archive.writestr(entry, library(aligned))
        found, count = pages.faults(apk)
        assert count == 1
        return found

    assert write(16384, 0) == []
    (fault,) = write(4096, 0)
    assert "libnew.so is aligned to 4096 bytes" in fault
    (fault,) = write(16384, 4096)
    assert "zipalign" in fault
    monkeypatch.setattr("sys.argv", ["check_pages.py", str(apk)])
    assert pages.main() == 1
    assert "1 libraries of 64 bits, 1 faults" in capsys.readouterr().out
