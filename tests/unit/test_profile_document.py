"""The profile document: its published schema, and that it cannot say what was not seen."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import MINIMAL
from pydantic import ValidationError

from sepvit_edge.profiling.document import Profile

COUNTED = MINIMAL | {
    "emulated": True,
    "latency": None,
    "instructions": {"runs": 2, "min": 7, "p50": 8, "max": 9, "counts": [9, 7]},
}


def test_counts_stand_in_place_of_times() -> None:
    assert Profile.model_validate(COUNTED).complete


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emulated": False}, "of an emulated device"),
        ({"latency": MINIMAL["latency"]}, "has no times: latency"),
        ({"preprocessing": MINIMAL["latency"]}, "has no times: preprocessing"),
        ({"golden": None}, "golden check"),
        ({"instructions": COUNTED["instructions"] | {"p50": 3}}, "not in order"),
        ({"instructions": COUNTED["instructions"] | {"runs": 3}}, "counts has 2 values"),
    ],
)
def test_a_count_is_never_a_time(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Profile.model_validate(COUNTED | change)
