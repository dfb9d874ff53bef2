"""One version of each runtime over Python, Android and the web, or a stated reason."""

from __future__ import annotations

import json
import re

import pytest
from helpers import REPOSITORY

from sepvit_edge.backends.registry import RUNTIMES
from sepvit_edge.config.toml import tomllib

APPS = REPOSITORY / "apps"
STATED = tomllib.loads((APPS / "runtimes.toml").read_text(encoding="utf-8"))
CATALOG = tomllib.loads((APPS / "android/gradle/libs.versions.toml").read_text(encoding="utf-8"))[
    "versions"
]
LOCKED = tomllib.loads((REPOSITORY / "uv.lock").read_text(encoding="utf-8"))["package"]
# Targets of the apps, by runtime.
TARGETS = {"onnxruntime": "onnxruntime", "executorch": "executorch", "ai-edge-litert": "litert"}


def _python(name: str) -> str:
    """Return the newest version in the lock file; older ones are for older versions of Python."""
    found = [package["version"] for package in LOCKED if package["name"] == name]
    return max(found, key=lambda version: [int(part) for part in version.split(".")])


def _builds() -> dict[str, dict[str, str]]:
    """Return the versions that the builds take, by runtime and part."""
    web = json.loads((APPS / "web/package.json").read_text(encoding="utf-8"))["dependencies"]
    return {
        "onnxruntime": {
            "python": _python("onnxruntime"),
            "android": CATALOG["onnxruntime"],
            "web": web["onnxruntime-web"],
        },
        "executorch": {"python": _python("executorch"), "android": CATALOG["executorch"]},
        "ai-edge-litert": {"python": _python("ai-edge-litert")},
    }


@pytest.mark.parametrize("name", TARGETS)
def test_the_builds_take_the_versions_of_the_set(name: str) -> None:
    stated, parts = STATED[name], STATED[name].get("parts", {})
    built = _builds()[name]
    assert parts.keys() <= built.keys()
    for part, version in built.items():
        wanted = parts.get(part, stated)["version"]
        assert version == wanted, (
            f"{part} builds with {name} {version}, runtimes.toml says {wanted}"
        )


@pytest.mark.parametrize("name", TARGETS)
def test_what_parts_from_the_set_has_a_reason(name: str) -> None:
    for part, facts in STATED[name].get("parts", {}).items():
        assert facts["version"] != STATED[name]["version"], f"{part} does not part from the set"
        assert len(facts["reason"].split()) > 5, part


@pytest.mark.parametrize("name", TARGETS)
def test_every_version_opens_todays_packages(name: str) -> None:
    """By the apps' rule: the lower bound by major and minor number, the upper one exactly."""
    runtime = RUNTIMES[TARGETS[name]]

    def numbers(version: str, count: int) -> list[int]:
        return [*map(int, version.split(".")), 0, 0, 0][:count]

    for part, version in _builds()[name].items():
        assert numbers(version, 2) >= numbers(runtime.minimum, 2), part
        assert numbers(version, 3) < numbers(runtime.below, 3), part


def test_every_runtime_of_an_app_is_in_the_set() -> None:
    assert STATED.keys() == TARGETS.keys()


def test_the_lock_file_of_the_web_app_has_the_same() -> None:
    lock = json.loads((APPS / "web/package-lock.json").read_text(encoding="utf-8"))
    locked = lock["packages"]["node_modules/onnxruntime-web"]["version"]
    assert locked == _builds()["onnxruntime"]["web"]


def test_the_documentation_gives_the_reasons() -> None:
    text = (REPOSITORY / "docs/apps.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"\| ONNX Runtime \|.*", text)
    for version in {*_builds()["onnxruntime"].values()}:
        assert version in row
