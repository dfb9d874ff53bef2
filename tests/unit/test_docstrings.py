"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY, TESTS
from PIL import Image

PACKAGE = REPOSITORY / "sepvit_edge"
# Runtimes that an example needs.
NEEDS = {
    "backends.litert": "ai_edge_litert",
    "package.session": "onnxruntime",
    "pipeline.export": "openvino",
}
PUBLIC = (
    *("model.create.create_model", "pipeline.export.export_package"),
    *("package.session.open_package", "checkpoints.files.load_checkpoint"),
    "checkpoints.files.save_checkpoint",
)


def with_examples() -> list[str]:
    """Modules whose source holds an example; the programs for devices import nothing from here."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if ">>> " in path.read_text(encoding="utf-8") and "runner" not in name:
            names.append(name)
    return names


@pytest.mark.parametrize("name", with_examples())
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "lite-onnxruntime-fp32").symlink_to(TESTS / "vectors" / "package")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save("photo.png")
    module = importlib.import_module(f"sepvit_edge.{name}")
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_functions_have_an_example(name: str) -> None:
    module, _, function = name.rpartition(".")
    documented = inspect.getdoc(getattr(importlib.import_module(f"sepvit_edge.{module}"), function))
    assert documented is not None and "\nExamples\n--------\n>>> " in documented
