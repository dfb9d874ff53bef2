"""Commands that are ended at random moments, and commands that write the same place."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package

REPOSITORY = Path(__file__).parents[2]
_SMALL = ["--weights", "lite-digits", "--image-size", "32", "--images", "2"]
_EXPORT = ["export", "--target", "onnxruntime", "--precision", "fp32", *_SMALL]
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """A command in a folder of its own; `{folder}` stands for the folder, `{package}` for one.

    Attributes
    ----------
    arguments : tuple of str
        The command line.
    output : str
        What it writes, in the folder.
    """

    arguments: tuple[str, ...]
    output: str


JOBS = (
    Job((*_EXPORT, "--output", "{folder}/p", "--force"), "p"),
    Job(
        ("train", "--recipe", "digits", "--steps", "4", "--batch", "4", "--resolution-schedule",
         "32", "--workers", "0", "--run", "{folder}/run", "--output", "{folder}/o.safetensors"),
        "o.safetensors",
    ),
    Job(("quantize", "--weights", "lite-digits", "--images", "4", "--json"), ""),
    Job(
        ("profile", "{package}", "--no-operations", "--threads", "1", "--save", "--results",
         "{folder}/results"),
        "results",
    ),
    Job(
        ("recommend", "--weights", "lite-digits", "--image-sizes", "32", "--targets",
         "onnxruntime", "--precisions", "fp32", "--threads", "1", "--images", "2", "--folder",
         "{folder}/found"),
        "found",
    ),
    Job(("predict", "{package}", "{package}/../images", "--save", "{folder}/t.csv"), "t.csv"),
)  # fmt: skip


def start(job: Job, folder: Path, package: Path) -> subprocess.Popen[str]:
    """Start a job in a process group of its own."""
    words = [word.format(folder=folder, package=package) for word in job.arguments]
    command = [sys.executable, "-m", f"sepvit_edge.{words[0]}", *words[1:]]
    where = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=where, start_new_session=True,
    )  # fmt: skip


def make_inputs(root: Path) -> Path:
    """Make a package, and a folder of images beside it."""
    from PIL import Image

    package = root / "input" / "package"
    package.parent.mkdir()
    made = subprocess.run(
        [sys.executable, "-m", f"sepvit_edge.{_EXPORT[0]}", *_EXPORT[1:], "--output", str(package)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (package.parent / "images").mkdir()
    for i in range(200):
        Image.new("RGB", (200 + i, 200), (i, 255 - i, 90)).save(
            package.parent / "images" / f"{i:03}.png"
        )
    return package


def kills(count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """End each job by each signal at random moments, and then run it to its end."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        package = make_inputs(root)
        for job in JOBS:
            name = job.arguments[0]
            whole = root / f"{name}-whole"
            whole.mkdir()
            began = time.monotonic()
            process = start(job, whole, package)
            _, said = process.communicate()
            seconds = time.monotonic() - began
            yield f"{name}, not disturbed", "" if process.returncode == 0 else said[-300:]
            for number in SIGNALS:
                for trial in range(count):
                    folder = root / f"{name}-{number}-{trial}"
                    folder.mkdir()
                    what = f"{name}, {signal.Signals(number).name} at a random moment"
                    yield what, _killed(job, folder, package, number, rng.uniform(0.2, seconds))
                    shutil.rmtree(folder)


def _killed(job: Job, folder: Path, package: Path, number: int, after: float) -> str:
    """Kill a job after some seconds; return the fault, if there is one."""
    process = start(job, folder, package)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    _, said = process.communicate()
    status = process.returncode
    allowed = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 143), signal.SIGINT: (130, -2)}[number]
    if status != 0 and status not in allowed:
        return f"after {after:.1f} s: exit status {status}: {said[-300:]!r}"
    # A signal that comes before Python has found the package can't be caught.
    if "Traceback" in said and "sepvit_edge" in said:
        return f"after {after:.1f} s: a traceback: {said[-300:]!r}"
    if fault := half_written(folder / job.output) if job.output else "":
        return f"after {after:.1f} s: {fault}"
    return ""


def half_written(output: Path) -> str:
    """Return what is wrong with what stands at the place of a result."""
    if not output.exists():
        return ""
    for manifest in [output / "manifest.json", *output.rglob("packages/*/manifest.json")]:
        if manifest.is_file():
            try:
                Package(manifest.parent)
            except SepViTError as error:
                return str(error)
    if output.suffix == ".safetensors":
        from sepvit_edge.checkpoints.files import load_checkpoint

        load_checkpoint(output)
    if output.suffix == ".csv" and len(output.read_text().splitlines()) != 201:
        return f"{output.name} has {len(output.read_text().splitlines())} lines"
    for path in output.rglob("*.json") if output.is_dir() else ():
        if not path.name.startswith("."):
            json.loads(path.read_bytes())
    return ""


def two_at_once(count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Start two exports to one place: one is refused, or comes after the other."""
    job = JOBS[0]
    for _ in range(count):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            first = start(job, folder, folder)
            time.sleep(rng.uniform(0, 2))
            second = start(job, folder, folder)
            said = [process.communicate()[1] for process in (first, second)]
            statuses = sorted((first.returncode, second.returncode))
            fault = half_written(folder / "p")
            refused = any("another process is writing" in text for text in said)
            if statuses not in ([0, 0], [0, 2]) or (statuses[1] == 2 and not refused):
                fault = fault or f"exit statuses {statuses}: {said}"
            if not (folder / "p" / "manifest.json").is_file():
                fault = fault or "no package is there"
            if len(list(folder.iterdir())) != 1:
                fault = fault or f"a rest: {[path.name for path in folder.iterdir()]}"
            yield "two exports to one place", fault
