"""The profile document: its published schema, and that it cannot say what was not seen."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import MINIMAL
from pydantic import ValidationError

from sepvit_edge.profiling.document import Profile


def test_an_app_can_fill_it() -> None:
    profile = Profile.model_validate(MINIMAL)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("latency", {"p90_ms": 1.5}, "not in order"),
        ("latency", {"runs": 4}, "runs_ms has 2 values"),
        ("golden", {"passed": False}, "must not be timed"),
        ("device", {"serial_number": "1"}, "Extra inputs"),
        (None, {"golden": None}, "golden check"),
        (None, {"complete": False}, "incomplete_reason"),
        (None, {"incomplete_reason": "lost"}, "incomplete_reason"),
        (None, {"schema_version": "3.0"}, "schema_version"),
    ],
)
def test_what_contradicts_itself_is_refused(
    section: str | None, change: dict[str, Any], message: str
) -> None:
    document = MINIMAL | ({section: MINIMAL[section] | change} if section else change)
    with pytest.raises(ValidationError, match=message):
        Profile.model_validate(document)
