"""Bytes of a package that are changed, one at a time."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package

_TINY = Path(__file__).parents[1] / "vectors" / "package"


def flipped_bytes(count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Flip a random bit of every byte of the manifest, and of `count` bytes of the other files."""
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(shutil.copytree(_TINY, Path(scratch) / "p"))
        for path in sorted(copied.iterdir()):
            data = path.read_bytes()
            places = range(len(data))
            if path.name != "manifest.json":
                places = rng.sample(places, min(count, len(data)))
            for place in places:
                changed = bytearray(data)
                changed[place] ^= 1 << rng.randrange(8)
                path.write_bytes(changed)
                yield f"a flipped bit of {path.name}", _refused(copied, place)
            path.write_bytes(data)


def _refused(folder: Path, place: int) -> str:
    try:
        Package(folder)
    except SepViTError as error:
        return "" if "\n" not in str(error) else f"byte {place}: two lines"
    except Exception as error:
        return f"byte {place}: {error!r}"
    return f"byte {place}: it opens"
