"""What else runs on the cores while calls are timed, from /proc/stat."""

from __future__ import annotations

import os
import time

from ... import machine

# Columns of /proc/stat (proc(5)) in which a core works; guest time is part of the first two.
USER, NICE, SYSTEM, IRQ, SOFTIRQ, STEAL = 0, 1, 2, 5, 6, 7
BUSY = (USER, NICE, SYSTEM, IRQ, SOFTIRQ)


class Watch:
    """The time that other processes take from this process's cores, from now on."""

    def __init__(self) -> None:
        self.cores = machine.usable_cores()
        self.start = self._now()

    def _now(self) -> tuple:
        text = machine.read_text("/proc/stat")
        times = None if text is None else core_times(text, self.cores)
        return time.perf_counter(), time.process_time(), times

    def reading(self) -> dict | None:
        """Return section ``interference`` of the document; None where the system does not tell."""
        (start, own_start, before), (end, own_end, after) = self.start, self._now()
        if before is None or after is None or end <= start:
            return None
        own = own_end - own_start
        return {
            "seconds": end - start,
            "cores": len(self.cores),
            # Ticks are coarse: a little less than our own time means none.
            "others_s": max(after[0] - before[0] - own, 0.0),
            "stolen_s": max(after[1] - before[1], 0.0),
        }


def core_times(text: str, cores: list, ticks: int = 0) -> tuple | None:
    """Sum the seconds that cores worked, and that the hypervisor took from them.

    Parameters
    ----------
    text : str
        Content of /proc/stat.
    cores : list of int
        Numbers of the cores.
    ticks : int
        Its unit, in ticks a second. Default: the system's.

    Returns
    -------
    tuple of float or None
        Seconds of work and seconds stolen; None if a core is missing.
    """
    ticks = ticks or os.sysconf("SC_CLK_TCK")
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line[:3] == "cpu"}
    rows = [lines.get(f"cpu{core}") for core in cores]
    try:
        numbers = [[int(word) for word in row] for row in rows if row is not None]
        busy = sum(row[column] for row in numbers for column in BUSY)
        stolen = sum(row[STEAL] for row in numbers)
    except (ValueError, IndexError):
        return None
    return (busy / ticks, stolen / ticks) if numbers and len(numbers) == len(rows) else None
