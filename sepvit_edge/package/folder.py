"""The deployable folder: manifest.json, model files, labels.txt, golden.safetensors.

A package says what it is, how it was made and how far it is from the reference, and is rejected if
any file was modified. Its bytes depend on its inputs alone: no dates, host names or paths.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..config.toml import first_fault
from ..errors import CheckFailed, SepViTError
from ..files import file_sha256
from ..model.variants import Preprocessing
from .manifest import GOLDEN, LABELS, MANIFEST, SCHEMA_VERSION, Manifest, PackageFile

if TYPE_CHECKING:
    pass


_FULL_BELOW = 1 << 16  # bytes
_DIGEST_LINE = re.compile(rb'"digest": "([0-9a-f]{64})"')


class Package:
    """A package on disk whose every byte was checked.

    Parameters
    ----------
    path : str or Path
        The folder.

    Raises
    ------
    SepViTError
        If it is damaged or not for this version; the sentence says why.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        for file in self.manifest.files:
            _check_file(self.path, file)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple((self.path / LABELS).read_text(encoding="utf-8").splitlines())

    @property
    def preprocessing(self) -> Preprocessing:
        """The rule from an image to the input."""
        facts = self.manifest.input
        return Preprocessing(facts.crop, facts.mean, facts.std)

    @property
    def size(self) -> int:
        """Bytes of the model files."""
        return sum(f.size for f in self.manifest.files if f.path not in (LABELS, GOLDEN))

    def golden(self) -> dict[str, np.ndarray]:
        """Return the golden vectors: ``image.0 ...``, ``pixels``, and both models' logits."""
        try:
            return load_file(self.path / GOLDEN)
        except (SafetensorError, ValueError) as error:
            raise SepViTError(f"{self.path / GOLDEN} cannot be read: {error}") from None


def _read_manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise SepViTError(f"there is no package {folder}")
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise SepViTError(f"{folder} is no package: it has no {MANIFEST}") from None
    try:
        document = json.loads(data)
        schema = document["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise SepViTError(
            f"{folder / MANIFEST} is damaged: it is no manifest; export again"
        ) from None
    if schema != SCHEMA_VERSION:
        raise SepViTError(
            f"{folder} has manifest schema {schema}, this version reads {SCHEMA_VERSION}; "
            "update sepvit-edge or export again"
        )
    # The digest first: a changed bit is damage, wherever it stands.
    if document.get("digest") != _digest(data):
        raise SepViTError(f"{folder / MANIFEST} was changed since it was exported; export again")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise SepViTError(f"{folder / MANIFEST} is not valid: {first_fault(error)}") from None


def _check_file(folder: Path, file: PackageFile) -> None:
    pure = PurePosixPath(file.path)
    path = folder / pure
    inside = folder.resolve() in path.resolve().parents
    if pure.is_absolute() or ".." in pure.parts or "\\" in file.path or not inside:
        raise SepViTError(f"{folder} names the file {file.path!r}, which leaves the folder")
    if not path.is_file():
        raise SepViTError(f"{folder} is incomplete: {file.path} is missing; export again")
    if path.stat().st_size != file.size or file_sha256(path) != file.sha256:
        raise SepViTError(f"{path} was changed since it was exported; export again")


def list_files(folder: Path) -> list[PackageFile]:
    """Every file of a package folder except its manifest, in order of path."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    return [
        PackageFile(
            path=p.relative_to(folder).as_posix(), sha256=file_sha256(p), size=p.stat().st_size
        )
        for p in paths
    ]


def _digest(data: bytes) -> str:
    return hashlib.sha256(_DIGEST_LINE.sub(b'"digest": "' + b"0" * 64 + b'"', data, 1)).hexdigest()


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.json with its own digest in it."""
    document = manifest.model_dump(mode="json") | {"digest": "0" * 64}
    data = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    data = data.replace(b"0" * 64, _digest(data).encode(), 1)
    (folder / MANIFEST).write_bytes(data)


@contextmanager
def replacing(destination: Path, force: bool) -> Iterator[Path]:
    """Fill a folder beside `destination`, and move it there when the block ends well.

    An interrupted block leaves nothing at `destination`; what a killed process left beside it is
    removed by the next one.

    Raises
    ------
    SepViTError
        If `destination` exists and `force` is false, or cannot be written.
    """
    destination = destination.absolute()
    check_destination(destination, force)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(destination)
    partial = destination.parent / f".{destination.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        previous = destination.parent / f".{destination.name}.previous-{os.getpid()}"
        if destination.exists():
            os.rename(destination, previous)
        os.rename(partial, destination)
        shutil.rmtree(previous, ignore_errors=True)
    except Exception as error:
        # Each runtime reports a full disk in words of its own.
        if partial.exists() and shutil.disk_usage(partial).free < _FULL_BELOW:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination)) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_destination(destination: Path, force: bool) -> None:
    """Refuse an existing destination unless `force`, and one that is no package even then."""
    if not destination.exists() and not destination.is_symlink():
        return
    if not force:
        raise SepViTError(f"{destination} exists; give --force to replace it, or another --output")
    if not destination.is_dir() or destination.is_symlink():
        raise SepViTError(f"{destination} is not a folder; give another --output")
    if any(destination.iterdir()) and not (destination / MANIFEST).is_file():
        raise SepViTError(f"{destination} is no package and is not replaced; give another --output")


def _remove_leftovers(destination: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(destination.name)}\.(partial|previous)-(\d+)")
    for path in destination.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or _alive(int(match[2])):
            continue
        if match[1] == "previous" and not destination.exists():
            os.rename(path, destination)  # killed between the two renames
        else:
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def compare_packages(first: Path, second: Path) -> None:
    """Compare two packages byte by byte.

    Raises
    ------
    CheckFailed
        Naming the first file that differs or is in one of them only.
    """
    files = [
        {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
        for root in (first, second)
    ]
    # The manifest last: it holds the digests of the others.
    for name in sorted(files[0].keys() | files[1].keys(), key=lambda n: (n == MANIFEST, n)):
        if name not in files[0] or name not in files[1]:
            raise CheckFailed(f"{name} is in one of the two packages only")
        if files[0][name].read_bytes() != files[1][name].read_bytes():
            raise CheckFailed(f"{name} differs from what its recipe and weights give")
