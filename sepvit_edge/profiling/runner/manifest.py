"""The manifest: a package's version, task and files are checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from .errors import Refusal

MANIFEST, LABELS, GOLDEN = "manifest.json", "labels.txt", "golden.safetensors"
# The manifests that are read; `sepvit_edge.package.schema` has the rule.
MANIFEST_VERSION = "2.3"
TASKS = ("classification", "segmentation", "detection")
_PRECISIONS = ("fp32", "fp16", "int8")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
_WORD = re.compile("[a-z][a-z0-9-]{0,39}")


def read_manifest(folder: Path, tasks: tuple = TASKS) -> dict:
    """Check a package for one of some tasks as `sepvit_edge.package` does; return its manifest."""
    try:
        data = (folder / MANIFEST).read_bytes()
        manifest = json.loads(data)
        check_version(manifest, folder)
    except FileNotFoundError:
        raise Refusal(f"{folder} is not a package: {MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise Refusal(
            f"{folder / MANIFEST} is damaged: it is not a manifest; export again"
        ) from None
    zeroed = re.sub(rb'"digest": "[0-9a-f]{64}"', b'"digest": "' + b"0" * 64 + b'"', data, count=1)
    if hashlib.sha256(zeroed).hexdigest() != manifest.get("digest"):
        raise Refusal(f"{folder / MANIFEST} was changed since it was exported; export again")
    task = manifest.get("task")
    if task not in tasks:
        raise Refusal(
            f"{folder} is for the task {str(task)[:40]!r}, which this runner does not run "
            f"(it runs {', '.join(tasks)}); update sepvit-edge"
        )
    for file in manifest["files"]:
        path = folder / file["path"]
        if folder.resolve() not in path.resolve().parents:
            raise Refusal(f"{folder} names the file {file['path']!r}, which leaves the folder")
        if not path.is_file():
            raise Refusal(f"{folder} is incomplete: {file['path']} is missing; copy it again")
        if path.stat().st_size != file["size"] or sha256(path) != file["sha256"]:
            raise Refusal(f"{path} was changed since it was exported; export or copy it again")
    return manifest


def check_version(manifest: dict, folder: Path) -> None:
    """Refuse a manifest of another major version.

    Raises
    ------
    Refusal
        If the major version is newer or older; the sentence says what to do.
    ValueError, KeyError, TypeError
        If it does not state a version.
    """
    stated = manifest["schema_version"]
    if isinstance(stated, int) and not isinstance(stated, bool) and stated == 1:
        stated = "1"
    elif not isinstance(stated, str) or not _VERSION.fullmatch(stated):
        raise ValueError(stated)
    major, own = int(stated.split(".")[0]), int(MANIFEST_VERSION.split(".")[0])
    if major > own:
        raise Refusal(
            f"{folder} has manifest version {stated}, this runner reads {MANIFEST_VERSION}; "
            "update sepvit-edge"
        )
    if major < own:
        words = ["python -m sepvit_edge.export"]
        target, precision = manifest.get("target"), manifest.get("precision")
        if isinstance(target, str) and _WORD.fullmatch(target):
            words.append(f"--target {target}")
        if precision in _PRECISIONS:
            words.append(f"--precision {precision}")
        raise Refusal(
            f"{folder} has manifest version {stated}, which is no longer read; make the package "
            f"again: {' '.join([*words, '--weights CHECKPOINT'])}"
        )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()
