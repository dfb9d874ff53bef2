"""Every patch of a vendor's library names an existing symbol, a supported version and a test."""

from __future__ import annotations

import ast
import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.version import Version

from sepvit_edge.backends import registry
from sepvit_edge.backends.support.vendor import VendorPatch

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ROOT / "sepvit_edge" / "backends"
# Module with a table, by the target whose library it patches.
TABLES = {
    "executorch": "support.xnnpack_patches",
    "executorch-vulkan": "support.edge_patches",
    "ethos-u": "support.arm_patches",
    "coreml": "coreml",
    "executorch-coreml": "executorch_coreml",
    "openvino": "openvino",
}


def table(target: str) -> tuple[VendorPatch, ...]:
    runtime = registry.RUNTIMES[target]
    for distribution in (runtime.distribution, *runtime.tools):
        try:
            version(distribution)
        except PackageNotFoundError:
            pytest.skip(f"{distribution} is not installed")
    module = importlib.import_module(f"sepvit_edge.backends.{TABLES[target]}")
    patches: tuple[VendorPatch, ...] = module.PATCHES
    return patches


@pytest.mark.parametrize("target", TABLES)
def test_every_patched_symbol_exists(target: str) -> None:
    for patch in table(target):
        assert callable(patch.original()) or patch.original().__name__, patch.symbol


@pytest.mark.parametrize("target", TABLES)
def test_every_patch_was_checked_with_a_supported_version(target: str) -> None:
    supported = {r.distribution: r for r in registry.RUNTIMES.values()}
    for patch in table(target):
        distribution, checked = patch.version.split()
        assert version(distribution), patch.version
        if distribution in supported:
            runtime = supported[distribution]
            assert Version(runtime.minimum) <= Version(checked) < Version(runtime.below)


@pytest.mark.parametrize("target", TABLES)
def test_every_patch_names_an_existing_test(target: str) -> None:
    for patch in table(target):
        file, _, name = patch.test.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in names, patch.test


def test_nothing_is_patched_outside_the_tables() -> None:
    patching = {
        path.relative_to(BACKENDS).as_posix()
        for path in BACKENDS.rglob("*.py")
        if "unittest.mock" in path.read_text(encoding="utf-8")
    }
    assert patching == {"support/vendor.py"}
    modules = {
        path.relative_to(BACKENDS).with_suffix("").as_posix().replace("/", ".")
        for path in BACKENDS.rglob("*.py")
        if "\nPATCHES = " in path.read_text(encoding="utf-8")
    }
    assert modules == set(TABLES.values())
