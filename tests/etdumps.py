"""ETDumps as ExecuTorch's event tracer writes them, by ExecuTorch's own serialiser."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def write_dump(path: Path, operators: Sequence[tuple[str, int]], runs: int = 3) -> Path:
    """Write an ETDump: operators with nanoseconds; run number i, from 1, takes i us more."""
    from executorch.devtools.etdump.schema_flatcc import ETDumpFlatCC, Event, ProfileEvent, RunData
    from executorch.devtools.etdump.serialize import serialize_to_etdump_flatcc

    def event(name: str, start: int, end: int, instruction: int, inside: bool) -> Event:
        profile = ProfileEvent(
            name="" if inside else name,
            chain_index=0,
            instruction_id=instruction,
            delegate_debug_id_int=-1,
            delegate_debug_id_str=name if inside else "",
            delegate_debug_metadata=b"",
            start_time=start,
            end_time=end,
        )
        return Event(profile_event=profile, allocation_event=None, debug_event=None)

    def block(name: str, events: list[Event]) -> RunData:
        return RunData(name=name, bundled_input_index=-1, allocators=[], events=events)

    blocks = [block("Default", [event("Program::load_method", 0, 5000, -1, False)])]
    for run in range(runs):
        now = 10**6 * (run + 1)
        seen: Counter[str] = Counter()
        events = []
        for name, duration in operators:
            seen[name] += 1
            events.append(event(f"{name} #{seen[name]}", now, now + duration, 0, True))
            now += duration
        begin = 10**6 * (run + 1)
        events.append(event("DELEGATE_CALL", begin, now, 0, False))
        events.append(event("OPERATOR_CALL", begin, now, 1, False))
        events.append(event("Method::execute", begin, now + 1000 * (run + 1), -1, False))
        blocks.append(block("Execute", events))
    data = serialize_to_etdump_flatcc(ETDumpFlatCC(version=0, run_data=blocks))
    path.write_bytes(struct.pack("<I", len(data)) + data)
    return path
