"""Check that an Android app's native libraries load on devices with memory pages of 16 KB.

    python scripts/check_pages.py app-release.apk        # also an .aar, an .aab, or a .so

Such a device refuses a 64-bit library whose segments are aligned to less than 16 KB, and one that
lies uncompressed at another place of the APK. The exit status is 1 if a library fails.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path

PAGE = 16384
_LOAD = 1  # PT_LOAD
_ABIS = ("arm64-v8a", "x86_64")  # devices with 32 bits keep pages of 4 KB


def alignment(library: bytes) -> int:
    """Return the smallest alignment of the segments that a 64-bit ELF library loads, in bytes.

    Raises
    ------
    ValueError
        If it is not such a library.
    """
    if library[:6] != b"\x7fELF\x02\x01" or len(library) < 64:
        raise ValueError("it is not a 64-bit little-endian ELF library")
    (start,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    found = []
    for at in range(start, start + size * count, size):
        (kind,) = struct.unpack_from("<I", library, at)
        if kind == _LOAD:
            found.append(struct.unpack_from("<Q", library, at + 48)[0])
    if not found:
        raise ValueError("it does not load anything")
    return min(found)


def faults(path: Path) -> tuple[list[str], int]:
    """Return what is wrong with each library of an archive, or with a library, and their number."""
    if not zipfile.is_zipfile(path):
        return _faults(path.name, path.read_bytes()), 1
    found, count = [], 0
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            parts = entry.filename.split("/")
            if not entry.filename.endswith(".so") or not set(parts) & set(_ABIS):
                continue
            count += 1
            found += _faults(entry.filename, archive.read(entry))
            in_apk = path.suffix == ".apk" and entry.compress_type == zipfile.ZIP_STORED
            if in_apk and (place := _place(path, entry)) % PAGE:
                found.append(f"{entry.filename} lies at byte {place}; run zipalign -P 16")
    return found, count


def _faults(name: str, library: bytes) -> list[str]:
    try:
        aligned = alignment(library)
    except (ValueError, struct.error) as error:
        return [f"{name}: {error}"]
    if aligned % PAGE == 0:
        return []
    return [
        f"{name} is aligned to {aligned} bytes, {PAGE} are needed; use a later version of it, or "
        "link it with -Wl,-z,max-page-size=16384"
    ]


def _place(path: Path, entry: zipfile.ZipInfo) -> int:
    """Return where the data of an entry begin in the archive."""
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return entry.header_offset + 30 + name + extra


def main() -> int:
    """Run the command."""
    status = 0
    for path in map(Path, sys.argv[1:]):
        if not path.is_file():
            print(f"{path} is not a file; give an APK, an AAR or a library", file=sys.stderr)
            return 2
        found, count = faults(path)
        print(f"{path}: {count} libraries of 64 bits, {len(found)} faults")
        for fault in found:
            print(f"  {fault}")
        status |= bool(found)
    return status


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) > 1 else __doc__)
