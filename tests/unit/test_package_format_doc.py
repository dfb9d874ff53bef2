"""docs/package-format.md names every key of the manifest, and what a verification proves."""

from __future__ import annotations

from helpers import REPOSITORY

from sepvit_edge.package.manifest import SCHEMA_VERSION, manifest_schema
from sepvit_edge.package.verification import LEVELS
from sepvit_edge.profiling.document import SCHEMA_VERSION as PROFILE_VERSION

TEXT = (REPOSITORY / "docs" / "package-format.md").read_text("utf-8")


def test_every_key_is_named() -> None:
    schema = manifest_schema()
    sections = [schema, *schema["$defs"].values()]
    keys = {key for section in sections for key in section.get("properties", {})}
    assert len(keys) > 70
    assert sorted(key for key in keys if f"`{key}`" not in TEXT) == []


def test_every_verification_is_explained() -> None:
    for name, level in LEVELS.items():
        assert f"| `{name}` | {level.proof} |" in TEXT


def test_the_current_schemas_are_linked() -> None:
    assert f"export/manifest-{SCHEMA_VERSION}.schema.json" in TEXT
    assert f"export/profile-{PROFILE_VERSION}.schema.json" in TEXT
