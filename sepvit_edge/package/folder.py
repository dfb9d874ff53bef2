"""The deployable folder: manifest.json, model files, labels.txt, golden.safetensors.

A package says what it is, how it was made and how far it is from the reference, and is rejected if
any file was modified. Its bytes depend on its inputs alone: no dates, host names or paths.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..config.recipe import PRECISIONS
from ..config.toml import first_fault
from ..errors import CheckFailed, SepViTError
from ..files import file_sha256
from ..model.variants import Preprocessing
from .manifest import GOLDEN, LABELS, MANIFEST, SCHEMA_VERSION, TASKS, Manifest, PackageFile
from .schema import standing
from .signature import SIGNATURE, Keys, load_trusted_keys, verify_folder

_LARGEST_MANIFEST = 1 << 24  # bytes; that of an export has some 10 kB
_DIGEST_LINE = re.compile(rb'"digest": "([0-9a-f]{64})"')
# Words of a manifest that was not checked may stand in a command only if they look like this.
_WORD = re.compile("[a-z][a-z0-9-]{0,39}")


class Package:
    """A package on disk of which every byte was checked.

    Parameters
    ----------
    path : str or Path
        The folder.
    trust : path or sequence of paths, optional
        Files of public keys of which one must have signed the package. Default: a signature is not
        looked at.

    Attributes
    ----------
    path : Path
        The folder.
    manifest : Manifest
        What the package says about itself.
    labels : tuple of str
        Class names in the order of the logits.

    Raises
    ------
    SepViTError
        If it is damaged, its version or task is not supported, or a trusted signature is asked for
        and missing; the sentence says why.
    """

    def __init__(self, path: str | Path, trust: Keys | None = None) -> None:
        self.path = Path(path)
        if trust is not None:
            trusted = load_trusted_keys(trust)
            _check_folder(self.path)
            verify_folder(self.path, trusted)
        self.manifest = _read_manifest(self.path)
        for file in self.manifest.files:
            _check_file(self.path, file)
        self.labels = _read_labels(self.path, self.manifest)

    @property
    def preprocessing(self) -> Preprocessing:
        """The rule from an image to the input."""
        facts = self.manifest.input
        return Preprocessing(facts.crop, facts.mean, facts.std)

    @property
    def size(self) -> int:
        """Size of the model files in bytes."""
        return sum(f.size for f in self.manifest.files if f.path not in (LABELS, GOLDEN))

    def golden(self) -> dict[str, np.ndarray]:
        """Return the golden vectors: ``image.0 ...``, ``pixels``, and both models' logits."""
        try:
            return load_file(self.path / GOLDEN)
        except (SafetensorError, ValueError) as error:
            raise SepViTError(f"{self.path / GOLDEN} cannot be read: {error}") from None


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SepViTError(f"there is no package {folder}")
    if not os.path.lexists(folder / MANIFEST):
        raise SepViTError(f"{folder} is not a package: {MANIFEST} is missing")


def _read_manifest(folder: Path) -> Manifest:
    """Check the version first, then the digest, then the task and every field."""
    _check_folder(folder)
    path = _file_inside(folder, MANIFEST)
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise _damaged(folder)
    data = path.read_bytes()
    try:
        document = json.loads(data, object_pairs_hook=_each_once)
        stated = document["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(folder) from None
    match standing(stated, SCHEMA_VERSION):
        case "none":
            raise _damaged(folder)
        case "newer":
            raise SepViTError(
                f"{folder} has manifest version {stated}, this version of sepvit-edge reads "
                f"{SCHEMA_VERSION}; update sepvit-edge"
            )
        case "older":
            raise SepViTError(
                f"{folder} has manifest version {stated}, which is no longer read; make the "
                f"package again: {export_command(document)}"
            )
    # A changed bit is damage, wherever it is.
    if document.get("digest") != _digest(data):
        raise SepViTError(f"{folder / MANIFEST} was changed since it was exported; export again")
    task = document.get("task")
    if isinstance(task, str) and task not in TASKS:
        raise SepViTError(
            f"{folder} is for the task {task[:40]!r}, which this version of sepvit-edge does not "
            f"run (it runs {', '.join(TASKS)}); update sepvit-edge"
        )
    try:
        return Manifest.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        raise SepViTError(f"{folder / MANIFEST} is not valid: {first_fault(error)}") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its keys and values; readers differ in what a repeated key means."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _file_inside(folder: Path, name: str) -> Path:
    """Return the path of a regular file in a folder; a link to one in the folder is one.

    Raises
    ------
    SepViTError
        If it is missing, leaves the folder, or is a folder, a device or a link to itself.
    """
    real, root = (os.path.realpath(path) for path in (folder / name, folder))
    if not real.startswith(os.path.join(root, "")):
        raise SepViTError(f"{folder} names the file {name!r}, which leaves the folder")
    if not os.path.lexists(real):
        raise SepViTError(f"{folder} is incomplete: {name} is missing; export again")
    if not stat.S_ISREG(os.lstat(real).st_mode):
        raise SepViTError(f"{folder / name} is not a regular file; export again")
    return Path(real)


def _damaged(folder: Path) -> SepViTError:
    return SepViTError(f"{folder / MANIFEST} is damaged: it is not a manifest; export again")


def export_command(document: dict[str, Any]) -> str:
    """Return the command that makes a package of an older version again.

    Parameters
    ----------
    document : dict
        Its manifest, unchecked: a target or precision that could be anything else than a name is
        left out.

    Examples
    --------
    >>> export_command({"target": "openvino", "precision": "int8"})
    'python -m sepvit_edge.export --target openvino --precision int8 --weights CHECKPOINT'
    >>> export_command({"target": "openvino; reboot", "precision": 8})
    'python -m sepvit_edge.export --weights CHECKPOINT'
    """
    target, precision = document.get("target"), document.get("precision")
    words = ["python -m sepvit_edge.export"]
    if isinstance(target, str) and _WORD.fullmatch(target):
        words.append(f"--target {target}")
    if precision in PRECISIONS:
        words.append(f"--precision {precision}")
    return " ".join([*words, "--weights CHECKPOINT"])


def _check_file(folder: Path, file: PackageFile) -> None:
    pure = PurePosixPath(file.path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in file.path or "\0" in file.path:
        raise SepViTError(f"{folder} names the file {file.path!r}, which leaves the folder")
    path = _file_inside(folder, file.path)
    if path.stat().st_size != file.size or file_sha256(path) != file.sha256:
        raise SepViTError(f"{folder / file.path} was changed since it was exported; export again")


def write_labels(labels: Sequence[str], folder: Path) -> None:
    """Write labels.txt, a line each."""
    (folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8", newline="\n")


def _read_labels(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Read the labels, which end at line feeds alone, and check that each class has one."""
    if LABELS not in (file.path for file in manifest.files):
        raise SepViTError(f"{folder} is incomplete: {LABELS} is missing; export again")
    text = (folder / LABELS).read_bytes().decode(errors="replace")
    labels = tuple(text.removesuffix("\n").split("\n"))
    if len(labels) != manifest.model.num_classes:
        raise SepViTError(
            f"{folder / MANIFEST} is not valid: {len(labels)} labels for "
            f"{manifest.model.num_classes} classes; export again"
        )
    return labels


def list_files(folder: Path) -> list[PackageFile]:
    """List the files of a package folder but manifest and signature, in order of path."""
    others = (folder / MANIFEST, folder / SIGNATURE)
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p not in others)
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


def compare_packages(first: Path, second: Path) -> None:
    """Compare two packages byte by byte; a signature is not compared, as it needs the key.

    Raises
    ------
    CheckFailed
        Naming the first file that differs or is in one of them only.
    """
    files = [
        {
            p.relative_to(root).as_posix(): p
            for p in root.rglob("*")
            if p.is_file() and p != root / SIGNATURE
        }
        for root in (first, second)
    ]
    # The manifest last: it holds the digests of the others.
    for name in sorted(files[0].keys() | files[1].keys(), key=lambda n: (n == MANIFEST, n)):
        if name not in files[0] or name not in files[1]:
            raise CheckFailed(f"{name} is in one of the two packages only")
        if files[0][name].read_bytes() != files[1][name].read_bytes():
            raise CheckFailed(f"{name} differs from what its recipe and weights give")
