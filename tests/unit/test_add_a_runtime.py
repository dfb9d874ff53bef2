"""The worked example of docs/development/adding-a-runtime.md: a package for a new runtime."""

from __future__ import annotations

import re
import sys
import textwrap
import types
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers import MINI, REPOSITORY, jittered, random_pixels

from sepvit_edge.backends.registry import RUNTIMES
from sepvit_edge.config.recipe import Recipe
from sepvit_edge.config.toml import tomllib
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.logits import reference_logits
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.export import export_package

DOCUMENT = REPOSITORY / "docs" / "development" / "adding-a-runtime.md"


def examples(language: str) -> list[str]:
    text = DOCUMENT.read_text("utf-8")
    return [
        textwrap.dedent(code)
        for code in re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.M | re.S)
    ]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The example's backend and its line in the table; returns the example's recipe."""
    backend, line = examples("python")
    module = types.ModuleType("sepvit_edge.backends.torch")
    exec(compile(backend, str(DOCUMENT), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with patch.dict(RUNTIMES):
        exec(compile(line, str(DOCUMENT), "exec"), {"__name__": "example"})
        added = RUNTIMES["torch"]
    monkeypatch.setitem(RUNTIMES, "torch", added)
    (recipe,) = examples("toml")
    return Recipe.model_validate(tomllib.loads(recipe))


def test_the_example_exports_a_package_that_computes_the_reference(
    runtime: Recipe, tmp_path: Path
) -> None:
    model = jittered(MINI)
    package = export_package(model, recipe=runtime, output=tmp_path / "package", images=4)
    assert package.manifest.target == "torch" and package.manifest.runtime.name == "torch"
    session = open_package(package.path)
    pixels = random_pixels(2, 64)
    logits = session.run_pixels(pixels)[0]
    assert sqnr_db(reference_logits(model, pixels), logits) > 100


def test_the_table_is_as_it_was() -> None:
    assert "torch" not in RUNTIMES
