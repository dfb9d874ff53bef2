"""Phases that run in processes of their own: the golden vectors, and cold starts."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from . import attendance
from .errors import Refusal
from .golden import check_golden
from .manifest import GOLDEN, MANIFEST
from .runtimes.registry import open_runtime
from .tensors import read_safetensors


def run_phase(options: argparse.Namespace, name: str) -> dict:
    """Run this program again for one phase, and return the document that it prints."""
    program = Path(sys.argv[0]).resolve()
    command = [*options.python, str(program), str(options.package)]
    command += ["--phase", name, "--started-ns", str(time.monotonic_ns())]
    for option in ("threads", "execution", "cores"):
        value = getattr(options, option)
        if value is not None:
            value = ",".join(map(str, value)) if option == "cores" else value
            command += [f"--{option}", str(value)]
    process = attendance.child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = process.communicate(timeout=options.phase_timeout)
    except subprocess.TimeoutExpired:
        limit = f"{options.phase_timeout:.0f} s"
        raise Refusal(f"the {name} phase took longer than {limit}") from None
    finally:
        process.kill()
        status, attendance.child = process.wait(), None
    lines = [line for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
    if status == 0 and lines:
        return json.loads(lines[-1])
    raise _refusal(name, status, err.decode(errors="replace").strip().splitlines())


def _refusal(name: str, status: int, said: list) -> Refusal:
    """Say why a phase ended without a document."""
    sentence = said[-1] if said else "it said nothing"
    if status == 2:
        return Refusal(sentence.replace("runner: ", "", 1))
    how = f"signal {-status}" if status < 0 else f"status {status}"
    if hasattr(signal, "SIGILL") and status == -signal.SIGILL:
        sentence = "the runtime uses instructions that this processor lacks"
    return Refusal(f"the {name} phase ended with {how}: {sentence}")


def golden_phase(options: argparse.Namespace) -> dict:
    """Run the golden vectors and compare the logits with those in the package."""
    manifest = json.loads((options.package / MANIFEST).read_bytes())
    golden = read_safetensors(options.package / GOLDEN)
    runtime = open_runtime(manifest, options.threads, options.execution)
    return check_golden(manifest, golden, runtime.load(options.package / runtime.model))


def start_phase(options: argparse.Namespace) -> dict:
    """Answer once and return the times, counted from the moment before this process was made."""
    manifest = json.loads((options.package / MANIFEST).read_bytes())
    facts = manifest["input"]
    runtime = open_runtime(manifest, options.threads, options.execution)
    imported = time.monotonic_ns()
    call = runtime.load(options.package / runtime.model)
    loaded = time.monotonic_ns()
    call([np.zeros(facts["shape"], facts["dtype"])])
    answered = time.monotonic_ns()
    return {
        "total_ms": (answered - options.started_ns) / 1e6,
        "import_ms": (imported - options.started_ns) / 1e6,
        "load_ms": (loaded - imported) / 1e6,
        "first_run_ms": (answered - loaded) / 1e6,
    }


PHASES = {"golden": golden_phase, "start": start_phase}


def cold_starts(options: argparse.Namespace) -> dict:
    """Start processes and return the medians of their times."""
    starts = []
    for _ in range(options.starts):
        dropped = drop_file_cache(options.package)
        starts.append(run_phase(options, "start"))
    medians = {name: float(np.median([start[name] for start in starts])) for name in starts[0]}
    return {"starts": len(starts), **medians, "file_cache": "dropped" if dropped else "warm"}


def drop_file_cache(folder: Path) -> bool:
    """Ask the system to forget the package's files, so that the next start reads the disk."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
