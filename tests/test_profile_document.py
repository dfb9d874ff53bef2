"""The profile document: its published schema, and that it cannot say what was not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sepvit_edge.profiling.document import Profile, profile_schema

# What a phone app knows at the least.
MINIMAL: dict[str, Any] = {
    "schema_version": 1,
    "complete": True,
    "producer": {"name": "ios-app", "version": "1.0"},
    "package": {
        "digest": "0" * 64,
        "variant": "lite",
        "target": "coreml",
        "precision": "fp16",
        "image_size": 224,
        "num_classes": 10,
        "batch": 1,
        "model_mb": 7.3,
        "macs": 568_400_000,
    },
    "runtime": {"name": "Core ML", "version": "18.0", "execution": "all"},
    "device": {"name": "iPhone 15 Pro"},
    "golden": {
        "images": 6,
        "sqnr_db": None,
        "minimum_sqnr_db": 45,
        "max_abs_error": 0,
        "top1_agreement": 1,
        "passed": True,
    },
    "latency": {
        "runs": 3,
        "min_ms": 1,
        "mean_ms": 2,
        "p50_ms": 2,
        "p90_ms": 2.8,
        "p99_ms": 2.98,
        "max_ms": 3,
        "runs_ms": [1, 2, 3],
    },
    "not_measured": [{"what": "energy", "reason": "iOS has no energy counter for apps"}],
}


def test_the_published_schema_is_the_models() -> None:
    published = Path(__file__).parent.parent / "export" / "profile.schema.json"
    assert json.loads(published.read_text()) == profile_schema(), (
        "run: python -m sepvit_edge.profiling.document > export/profile.schema.json"
    )


def test_an_app_can_fill_it() -> None:
    profile = Profile.model_validate(MINIMAL)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("latency", {"p90_ms": 1.5}, "not in order"),
        ("latency", {"runs": 4}, "runs_ms has 3 values"),
        ("golden", {"passed": False}, "must not be timed"),
        ("device", {"serial_number": "1"}, "Extra inputs"),
        (None, {"golden": None}, "golden check"),
        (None, {"complete": False}, "incomplete_reason"),
        (None, {"incomplete_reason": "lost"}, "incomplete_reason"),
        (None, {"schema_version": 2}, "schema_version"),
    ],
)
def test_what_contradicts_itself_is_refused(
    section: str | None, change: dict[str, Any], message: str
) -> None:
    document = MINIMAL | ({section: MINIMAL[section] | change} if section else change)
    with pytest.raises(ValidationError, match=message):
        Profile.model_validate(document)
