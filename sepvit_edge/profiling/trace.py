"""Chrome traces for ui.perfetto.dev, with stage, part and operation as lanes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import SepViTError
from ..files import replacing_file
from .attribution import OVERHEAD, parts_of
from .document import Profile
from .parts import stage_of

_LANES = ("stage", "part", "operation")


def write_trace(profiles: Sequence[Profile], path: Path) -> None:
    """Write the mean times of operations in sequence; each measurement is a process.

    Raises
    ------
    SepViTError
        If no document has times of operations.
    """
    events: list[dict[str, Any]] = []
    for pid, profile in enumerate((p for p in profiles if p.operations), 1):
        events += _events(profile, pid)
    if not events:
        raise SepViTError("no times of operations were measured, so there is no trace to write")
    document = {"traceEvents": events, "displayTimeUnit": "ms"}
    with replacing_file(path) as partial:
        partial.write_text(json.dumps(document) + "\n", encoding="utf-8")


def _events(profile: Profile, pid: int) -> list[dict[str, Any]]:
    assert profile.operations is not None
    items = [item for item in profile.operations.items if item.kind != OVERHEAD]
    overhead = sum(i.mean_us for i in profile.operations.items if i.kind == OVERHEAD)
    title = f"{profile.device.name}: {profile.title}, mean times laid end to end"
    events = [_name("process_name", pid, 0, title)]
    events += [_name("thread_name", pid, lane, text) for lane, text in enumerate(_LANES)]
    timeline = []
    now = 0.0
    for item, part in zip(items, parts_of(items), strict=True):
        length = max(item.mean_us - overhead, 0.0)
        event = {"name": item.kind, "ph": "X", "pid": pid, "tid": 2, "ts": now, "dur": length}
        facts = {"name": item.name, "kernel": item.kernel, "part": part}
        events.append({**event, "cat": "operation", "args": facts})
        timeline.append((part or "unattributed", now, length))
        now += length
    for lane, name in enumerate((lambda span: stage_of(span[0]), lambda span: span[0])):
        for text, group in groupby(timeline, name):  # neighbours of one stage or part
            spans = list(group)
            start, length = spans[0][1], sum(span[2] for span in spans)
            event = {"name": text, "cat": _LANES[lane], "ph": "X", "pid": pid, "tid": lane}
            events.append({**event, "ts": start, "dur": length})
    return events


def _name(kind: str, pid: int, tid: int, text: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": text}}
