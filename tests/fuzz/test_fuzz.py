"""Files of strangers, changed at random: each is read, or refused in one sentence.

A few hundred of each here; in full: `python -m pytest tests/fuzz --fuzz 20000`.
"""

from __future__ import annotations

import copy
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import MINIMAL, REPOSITORY, TESTS
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from sepvit_edge.checkpoints.labels import read_labels
from sepvit_edge.checkpoints.reading import read_state_dict
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.data.classes import read_pairs
from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package
from sepvit_edge.package.manifest import GOLDEN, MANIFEST
from sepvit_edge.pipeline.saving import growing_table
from sepvit_edge.profiling.connections.app_file import read_app_file
from sepvit_edge.profiling.connections.remote import read_look
from sepvit_edge.profiling.devices import load_device
from sepvit_edge.profiling.document import read_profile
from sepvit_edge.training.recipe import load_training_recipe

TINY = TESTS / "vectors" / "package"
_LONGEST = 4000  # characters of a sentence
_ODD = (
    *(0, -1, 1, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, -0.0, float("nan"), float("inf")),
    *(True, None, "", "0", "\0", "\n", "\x1b[31m", "[/x]", "<b>", "../x", "\ud800", "x" * 5000),
)


def read_or_refused(read: Callable[[], object]) -> None:
    """Call what reads; an error must be one sentence."""
    try:
        read()
    except SepViTError as error:
        sentence = str(error)
        assert sentence and len(sentence) < _LONGEST, sentence
        assert "\n" not in sentence, repr(sentence)


# Some runtimes set the processor to round subnormal numbers to zero.
_floats = st.floats(allow_subnormal=False)
values = st.recursive(
    st.sampled_from(_ODD) | st.text(max_size=9) | st.integers() | _floats,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each value inside a document."""
    keys = document.keys() if isinstance(document, dict) else range(len(document))
    found = []
    for key in keys:
        found.append((*path, key))
        if isinstance(document[key], dict | list):
            found += places(document[key], (*path, key))
    return found


@st.composite
def changed(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """A document with up to three values replaced, removed, doubled or added."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        here = places(document)
        if not here:
            break
        *way, last = draw(st.sampled_from(here))
        parent = document
        for key in way:
            parent = parent[key]
        match draw(st.sampled_from(("replace", "replace", "remove", "add", "swap"))):
            case "replace":
                parent[last] = draw(values)
            case "remove":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=5))] = draw(values)
            case "add":
                parent.append(draw(values))
            case "swap":
                other = draw(st.sampled_from(here))
                value: Any = document
                for key in other:
                    value = value[key] if not isinstance(value, str) else value
                parent[last] = copy.deepcopy(value)
    return document


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some flipped, cut, doubled or put in."""
    changing = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(changing) - 1, 0)))
        match draw(st.sampled_from(("flip", "cut", "insert", "double"))):
            case "flip" if changing:
                changing[at] ^= draw(st.integers(1, 255))
            case "cut":
                del changing[at : at + draw(st.integers(1, 99))]
            case "insert":
                changing[at:at] = draw(st.binary(max_size=9))
            case "double":
                changing[at:at] = changing[at : at + 50]
    return bytes(changing)


def in_file(data: bytes, name: str, read: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        read_or_refused(lambda: read(path))


def as_json(document: object) -> bytes:
    return json.dumps(document, indent=2).encode()


def sealed(document: dict[str, Any]) -> bytes:
    """A manifest with its own digest, as an attacker writes it."""
    from make_vectors import seal

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MANIFEST
        path.write_bytes(as_json(document | {"digest": "0" * 64}))
        seal(path)
        return path.read_bytes()


def opens(manifest: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(shutil.copytree(TINY, Path(folder) / "p"))
        (copied / MANIFEST).write_bytes(manifest)
        read_or_refused(lambda: Package(copied))


_MANIFEST = json.loads((TINY / MANIFEST).read_bytes())


@given(changed(_MANIFEST))
def test_manifests_that_are_sealed_again(document: dict[str, Any]) -> None:
    pytest.importorskip("onnx")
    opens(sealed(document))


@given(damaged((TINY / MANIFEST).read_bytes()))
def test_manifests_of_other_bytes(data: bytes) -> None:
    opens(data)


@given(changed(MINIMAL))
def test_profile_documents(document: dict[str, Any]) -> None:
    read_or_refused(lambda: read_profile(document, "x.json"))


@given(damaged(as_json(MINIMAL)))
def test_profile_documents_of_other_bytes(data: bytes) -> None:
    in_file(data, "x.json", lambda path: read_app_file(path, [Package(TINY)]))


_TENSORS = save({"head.weight": np.ones((3, 4), np.float32), "b": np.zeros(2, np.uint8)})
_HEADER = json.loads(_TENSORS[8 : 8 + struct.unpack("<Q", _TENSORS[:8])[0]])


@given(changed(_HEADER))
def test_headers_of_safetensors(header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + bytes(50)
    in_file(data, "x.safetensors", read_state_dict)


@given(damaged(_TENSORS))
def test_safetensors_of_other_bytes(data: bytes) -> None:
    in_file(data, "x.safetensors", read_state_dict)


@given(damaged((TINY / GOLDEN).read_bytes()))
def test_golden_vectors_of_other_bytes(data: bytes) -> None:
    package = Package(TINY)

    def read(path: Path) -> object:
        package.path = path.parent
        return package.golden()

    in_file(data, GOLDEN, read)


def _shipped(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((REPOSITORY / folder).rglob("*.toml"))]


@given(st.sampled_from(_shipped("export")).flatmap(damaged))
def test_recipes(data: bytes) -> None:
    in_file(data, "x.toml", load_recipe)


@given(st.sampled_from(_shipped("profiles")).flatmap(damaged))
def test_device_files(data: bytes) -> None:
    in_file(data, "x.toml", lambda path: load_device(str(path)))


@given(st.sampled_from(_shipped("sepvit_edge")).flatmap(damaged))
def test_training_recipes(data: bytes) -> None:
    in_file(data, "x.toml", lambda path: load_training_recipe(str(path), {}))


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | damaged(b'["a", "b"]\n{1}'))
def test_labels(data: bytes) -> None:
    in_file(data, "labels.txt", lambda path: read_labels(str(path)))


@given(damaged(b'{"n01": "cat", "n02": "dog"}') | damaged(b"n01,cat\nn02\tdog\n"))
def test_files_of_classes(data: bytes) -> None:
    in_file(data, "classes.json", read_pairs)


_LOOK = {"folder": "/home/x", "free": 10, "sha256": {"a": "0"}}


@given(changed(_LOOK).map(json.dumps) | damaged(json.dumps(_LOOK).encode()).map(repr))
def test_answers_of_devices(text: str) -> None:
    read_or_refused(lambda: read_look(text, "device"))


@given(st.binary(max_size=200) | damaged(b'{"a": 1}\nimage,class\nx,"1"\n"y\n",2\n'))
def test_tables_that_a_killed_run_left(data: bytes) -> None:
    keys = ["x", "y\n", "z"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.with_name(".t.csv.partial").write_bytes(data)
        with growing_table(path, {"a": 1}, ["image", "class"], keys) as table:
            for key in keys[table.kept :]:
                table.add([key, "1"])
        assert path.read_bytes().startswith(b"image,class\nx,")


@given(st.data())
def test_signatures(data: st.DataObject) -> None:
    pytest.importorskip("cryptography")
    from sepvit_edge.package.signature import SIGNATURE, load_trusted_keys, verify_folder

    case = json.loads((TESTS / "vectors" / "signatures.json").read_text())[0]
    text = case["edits"][0]["text"]
    other = data.draw(changed(json.loads(text)).map(as_json) | damaged(text.encode()))
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(shutil.copytree(TINY, Path(folder) / "package"))
        (copied / SIGNATURE).write_bytes(other)
        (Path(folder) / "keys").write_text(case["keys"])
        trusted = load_trusted_keys(Path(folder) / "keys")
        read_or_refused(lambda: verify_folder(copied, trusted))
