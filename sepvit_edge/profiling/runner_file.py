"""The runner as one file for the device: a zip that Python runs (`python runner.pyz PACKAGE`)."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

NAME = "runner.pyz"
_PACKAGE = Path(__file__).parent.parent
_RUNNER = Path("profiling/runner")
_MAIN = f"from {_PACKAGE.name}.profiling.runner.command import start\n\nstart()\n"
# Modules keep their names in the zip; the packages above them are empty there.
_EMPTY = ("__init__.py", "profiling/__init__.py")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip cannot say an earlier time


def runner_sources() -> dict[str, str]:
    """Return the sources of the zip, by their paths in it."""
    shared = [_PACKAGE / "machine.py", *sorted((_PACKAGE / _RUNNER).rglob("*.py"))]
    found = {"__main__.py": _MAIN}
    found |= {f"{_PACKAGE.name}/{name}": "" for name in _EMPTY}
    for path in shared:
        name = f"{_PACKAGE.name}/{path.relative_to(_PACKAGE).as_posix()}"
        found[name] = path.read_text(encoding="utf-8")
    return found


def runner_bytes() -> bytes:
    """Return the zip; the same sources give the same bytes, on any machine."""
    data = io.BytesIO()
    # Not compressed, since the bytes of a compressed file depend on the version of zlib.
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, source in sorted(runner_sources().items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix, everywhere
            archive.writestr(entry, source)
    return data.getvalue()


def write_runner(folder: Path) -> Path:
    """Write the zip into a folder, and return its path."""
    path = folder / NAME
    path.write_bytes(runner_bytes())
    return path
