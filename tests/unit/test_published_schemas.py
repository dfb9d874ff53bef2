"""The JSON Schemas in export/: published once, never changed, and each minor only adds keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import REPOSITORY

from sepvit_edge.package.manifest import SCHEMA_VERSION, manifest_schema
from sepvit_edge.profiling.document import SCHEMA_VERSION as PROFILE_VERSION
from sepvit_edge.profiling.document import profile_schema

EXPORT = REPOSITORY / "export"
# SHA-256 of what each published schema allows, its prose left out. A line is added for a new
# version, and none is ever changed: packages of that version are in use.
FROZEN = {
    "manifest-1": "849f15336b5edeba60c9d262fa90f4dbe5cd446a260d80e909c8f5de3447e881",
    "manifest-2.0": "711fe06a71e9424b53107e89526198706894ec52c2b2f4b329841ba7aaaa6c65",
    "manifest-2.1": "67dab5182527653409f6196af3bfb3e588857f3f28f11d921c26f64c30d8e136",
    "manifest-2.2": "91de6599298c0cc53f45e6a943426b34eba3e7215b0bdae3dfcf411319a5d1db",
    "manifest-2.3": "f7619963300410b58090ee82d52e712bc2501d35891204a3d671266d7fb7243c",
    "profile-1": "b7d5bcd0e2ce3543f2885c7f8403d9b45888e64fd872bd563072f638432d9185",
    "profile-2.0": "4264211783fd38ee892ee8feb80763d0cff1584e3f79bfa0233b52edb6a7b3a4",
    "profile-2.1": "1086e7593d413deafd6cacdc30151f57bc6942f109a7b086b86945e0da385bab",
    "profile-2.2": "25513b063d27d33d96662852d987df828f83a201455370328d227f5d9b2f3a1d",
    "profile-2.3": "8efda6fbd2f7736425f9c88e12bce595878459672093dffe54bde117f8649fec",
    "profile-2.4": "6a396ecbd7cd5797258e55e2a22d9a2036c7c5749a8671fccd0ab08d61b9c936",
}
NOW = {
    "manifest": (SCHEMA_VERSION, manifest_schema, "sepvit_edge.package.manifest"),
    "profile": (PROFILE_VERSION, profile_schema, "sepvit_edge.profiling.document"),
}


# What grows with a task: the rule for its outputs, and its name. A reader refuses a task that it
# does not run by its name, before it looks at any field.
MAPPING = "/postprocessing/anyOf/0/discriminator/mapping"
GROWING = ("/postprocessing/anyOf/0/oneOf", "/properties/task/enum")


def published() -> dict[str, dict[str, Any]]:
    """Return the schemas by document and version: ``manifest-2.0``."""
    paths = sorted(EXPORT.glob("*.schema.json"))
    return {p.name.removesuffix(".schema.json"): json.loads(p.read_text("utf-8")) for p in paths}


def rules(node: Any) -> Any:
    """Drop the prose of a schema. A property may be called like it: its value is a schema then."""
    if isinstance(node, dict):
        prose = [k for k in ("title", "description") if isinstance(node.get(k), str)]
        return {key: rules(value) for key, value in node.items() if key not in prose}
    return [rules(value) for value in node] if isinstance(node, list) else node


def digest(schema: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(rules(schema), sort_keys=True).encode()).hexdigest()


def breaks(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Tell what a reader of the old schema could stumble over in a document of the new one.

    And the other way round: a document of the old version must be valid in the new one.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            place = f"{where}/{key}"
            if key in old and key in new:
                yield from breaks(old[key], new[key], place)
            elif key in old:
                yield f"{place} was removed"
            elif not where.endswith(("/properties", "/$defs", MAPPING)):
                yield f"{place} was added"
    elif where.endswith("/anyOf") and len(old) == len(new):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from breaks(one, other, f"{where}/{i}")
    elif old != new and not (where.endswith(GROWING) and new[: len(old)] == old):
        yield f"{where} changed"


@pytest.mark.parametrize("document", NOW)
def test_the_published_schema_is_the_codes(document: str) -> None:
    version, schema, module = NOW[document]
    path = EXPORT / f"{document}-{version}.schema.json"
    advice = f"run: python -m {module} > export/{path.name}"
    assert path.is_file() and json.loads(path.read_text("utf-8")) == schema(), advice


def test_what_was_published_has_not_changed() -> None:
    found = {name: digest(schema) for name, schema in published().items()}
    assert found == FROZEN, (
        "a published version never changes: raise SCHEMA_VERSION (the minor for keys that a reader "
        "may ignore, else the major; docs/package-format.md), print the new schema into export/, "
        "and add its digest to FROZEN"
    )


@pytest.mark.parametrize("document", NOW)
def test_a_minor_version_only_adds_keys(document: str) -> None:
    schemas = {
        tuple(map(int, name.removeprefix(f"{document}-").split("."))): rules(schema)
        for name, schema in published().items()
        if name.startswith(f"{document}-") and "." in name
    }
    for (major, minor), schema in schemas.items():
        if minor > 0:
            assert list(breaks(schemas[major, minor - 1], schema)) == []


def test_a_break_is_noticed() -> None:
    old = {"properties": {"a": {"type": "string"}, "b": {"enum": ["x"]}}, "required": ["a"]}
    added = {"properties": {**old["properties"], "c": {"type": "null"}}, "required": ["a"]}
    assert list(breaks(old, added)) == []
    for new, message in (
        (old | {"required": ["a", "c"]}, "/required changed"),
        (old | {"properties": {"a": old["properties"]["a"]}}, "/properties/b was removed"),
        (old | {"properties": old["properties"] | {"b": {"enum": ["x", "y"]}}}, "/b/enum changed"),
        (old | {"additionalProperties": False}, "/additionalProperties was added"),
    ):
        (found,) = breaks(old, new)
        assert found.endswith(message)


def test_a_task_may_be_added_and_none_changed() -> None:
    old, new, other = (
        {"properties": {"task": {"enum": tasks}}} for tasks in (["x"], ["x", "y"], ["y", "x"])
    )
    assert list(breaks(old, new)) == []
    assert list(breaks(old, other)) == list(breaks(new, old)) == ["/properties/task/enum changed"]


def test_readers_may_ignore_what_they_do_not_know() -> None:
    for name, schema in published().items():
        if "." in name:
            assert '"additionalProperties": false' not in json.dumps(schema)
