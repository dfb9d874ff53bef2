"""Places that are full: the output, the temporary folder, the cache, the results."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .kills import JOBS, REPOSITORY, Job, half_written, make_inputs

_PLACES = ("the output", "TMPDIR", "the cache")


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path | None]:
    """Mount a tmpfs of some size; None where nothing can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disks(count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Run commands with places of 64 kB to 8 MB."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        package = make_inputs(root)
        trial = 0
        for job in (JOBS[0], JOBS[3], JOBS[5]):
            for place in _PLACES:
                for _ in range(max(1, count // 10)):
                    trial += 1
                    size = rng.choice((64, 1024, 8192))
                    with small_disk(root / f"disk-{trial}", size) as disk:
                        if disk is None:
                            return
                        name = f"{job.arguments[0]}, {place} of {size} kB"
                        yield name, _on_disk(job, place, disk, root / f"work-{trial}", package)


def _on_disk(job: Job, place: str, disk: Path, work: Path, package: Path) -> str:
    work.mkdir()
    folder = disk if place == "the output" else work
    where = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    if place == "TMPDIR":
        where["TMPDIR"] = str(disk)
    if place == "the cache":
        where["XDG_CACHE_HOME"] = str(disk)
    words = [word.format(folder=folder, package=package) for word in job.arguments]
    command = [sys.executable, "-m", f"sepvit_edge.{words[0]}", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, env=where, cwd=work)
    if "Traceback" in done.stderr or done.returncode not in (0, 2):
        return f"exit status {done.returncode}: {done.stderr[-300:]!r}"
    if done.returncode == 2 and "full" not in done.stderr:
        return f"another sentence: {done.stderr[-300:]!r}"
    if fault := half_written(folder / job.output):
        return fault
    kept = (job.output, ".t.csv.partial")
    rest = [path.name for path in folder.iterdir() if path.name not in kept]
    return f"a rest: {rest}" if rest else ""
