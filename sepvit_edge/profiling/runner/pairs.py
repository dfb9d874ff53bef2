"""Two packages timed in turn on this device, so that what disturbs it meets both."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .conditions import conditions, wait_until_cool
from .document import Missing, begin_document
from .errors import Refusal
from .golden import golden_sentence
from .interference import Watch
from .latency import time_in_turn
from .manifest import read_manifest
from .output import Output
from .phases import run_phase
from .runtimes.registry import open_runtime
from .system import describe_device


def time_pairs(options: argparse.Namespace, output: Output) -> int:
    """Check both packages, time them in turn, and write the pairs; return the exit status."""
    document = {
        "emulated": options.emulated,
        "device": describe_device(options.device_name, Missing()),
    }
    calls = {}
    for name, folder in (("first", options.package), ("second", options.against)):
        document[name], calls[name] = _open(folder, options, output)
        document["emulated"] = document["emulated"] or document[name].pop("emulated")
    if options.max_start_temp is not None:
        wait_until_cool(options.max_start_temp, output)
    output.progress("timing both in turn")
    document["before"] = conditions()
    watch = Watch()
    times = time_in_turn(calls, options.runs, options.seconds)
    document["interference"] = watch.reading()
    document["after"] = conditions()
    document["pairs_ms"] = [
        [first * 1e3, second * 1e3] for first, second in zip(times["first"], times["second"])
    ]
    output.pairs(document)
    return 0


def _open(folder: Path, options: argparse.Namespace, output: Output) -> tuple:
    """Check one package and load it; return what the document says of it, and its call."""
    output.progress(f"running the golden vectors of {folder.name}")
    manifest = read_manifest(folder)
    own = argparse.Namespace(**{**vars(options), "package": folder})
    golden = run_phase(own, "golden")
    if not golden["passed"]:
        raise Refusal(f"{folder.name}: {golden_sentence(golden)}")
    runtime = open_runtime(manifest, options.threads, options.execution)
    call = runtime.load(folder / runtime.model)
    facts = manifest["input"]
    pixels = np.random.default_rng(0).integers(0, 256, facts["shape"]).astype(facts["dtype"])
    begun = begin_document(own, manifest)
    begun["runtime"].update(
        version=runtime.version, execution=runtime.execution, settings=runtime.config
    )
    said = {"package": begun["package"], "runtime": begun["runtime"], "emulated": runtime.emulated}
    return said, lambda: call([pixels])
