"""The iOS app's own copies are the published files; `.ci/ios` tests the Swift sources."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_manifest_schema_in_the_app_is_the_published_one() -> None:
    published = ROOT / "export" / "manifest.schema.json"
    copy = ROOT / "apps/ios/SepViTKit/Sources/SepViTKit/manifest.schema.json"
    message = f"cp {published.relative_to(ROOT)} {copy.relative_to(ROOT)}"
    assert copy.read_bytes() == published.read_bytes(), message
