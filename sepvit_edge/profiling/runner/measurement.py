"""One measurement, step by step; each step adds its section to the document."""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np

from ... import machine
from .conditions import REASONS, conditions, wait_until_cool
from .document import Missing, begin_document
from .energy import EnergyMeter
from .errors import Refusal
from .golden import golden_sentence, time_preprocessing
from .interference import Watch
from .latency import (
    WARMUP_RUNS,
    clock_resolution_ns,
    count_instructions,
    distribution,
    timed,
    warm_up,
)
from .manifest import GOLDEN, TASKS, read_manifest
from .memory import peak_mb, resident_mb
from .output import Output
from .phases import cold_starts, run_phase
from .roofs import KIT_RUNS, measure_bandwidth, time_kit
from .runtimes.interface import Call, Runtime
from .runtimes.registry import open_runtime
from .sustained import sustain
from .system import describe_device
from .tensors import read_safetensors

GROWTH_S = 120.0  # growth_runs ends here on slow devices
IDLE_S = 2.0  # how long idle power is measured
SAMPLE_S = 0.5  # between two readings of a power sensor


class Measurement:
    """One package measured on this device.

    Parameters
    ----------
    options : argparse.Namespace
        What was asked for (`sepvit_edge.profiling.runner.command`).
    output : Output
        Where progress and document go.
    """

    tasks: tuple = TASKS
    runtime: Runtime
    call: Call
    arrays: list

    def __init__(self, options: argparse.Namespace, output: Output) -> None:
        self.options, self.output = options, output
        output.progress("checking the files")
        self.manifest = read_manifest(options.package, self.tasks)
        self.counting = options.clock == "instructions"
        self.missing = Missing()
        self.meter = EnergyMeter()
        bind_to_cores(options.cores)
        self.document = begin_document(options, self.manifest)
        self.document["device"] = describe_device(options.device_name, self.missing)
        self.document["not_measured"] = self.missing.items

    def run(self) -> int:
        """Measure everything that was asked for; return the exit status."""
        if not self.check_golden():
            return 1
        self.time_cold_starts()
        self.load()
        self.warm_up()
        (self.count_calls if self.counting else self.time_calls)()
        self.watch_memory()
        self.time_operations()
        self.measure_roofs()
        self.sustain()
        self.document.update(complete=True, incomplete_reason=None)
        self.output.document(self.document, final=True)
        return 0

    def check_golden(self) -> bool:
        """Check logits and pixels; a device that fails gets its document here, without times."""
        self.output.progress("running the golden vectors")
        golden = self.document["golden"] = self.run_golden()
        tensors = read_safetensors(self.options.package / GOLDEN)
        try:
            identical, times = time_preprocessing(tensors, self.manifest)
            golden["preprocessing_identical"] = identical
            golden["passed"] = golden["passed"] and identical
            if not self.counting:
                self.document["preprocessing"] = times
        except ImportError:
            self.missing.note("preprocessing", "Pillow is not installed on the device")
        if not golden["passed"]:
            reason = self.document["incomplete_reason"] = golden_sentence(golden)
            self.document.pop("preprocessing", None)
            self.output.document(self.document, final=True)
            print(f"runner: {reason}", file=sys.stderr)
            return False
        self.output.document(self.document, final=False)
        return True

    def run_golden(self) -> dict:
        """Return section ``golden``, of a process of its own."""
        return run_phase(self.options, "golden")

    def time_cold_starts(self) -> None:
        """Cool down, then time processes from their start to their first answer."""
        if self.options.max_start_temp is not None:
            wait_until_cool(self.options.max_start_temp, self.output)
        if not self.options.starts:
            self.missing.note("cold_start", "not requested")
            return
        self.output.progress("cold starts")
        self.document["cold_start"] = cold_starts(self.options)

    def load(self) -> None:
        """Load the runtime and the model, and make an input."""
        options = self.options
        baseline = resident_mb()
        runtime = open_runtime(self.manifest, options.threads, options.execution)
        # The host cannot know whether this runtime emulates its device.
        options.emulated = self.document["emulated"] = options.emulated or runtime.emulated
        self.call = runtime.load(options.package / runtime.model)
        self.runtime = runtime
        self.document["memory"] = {"baseline_mb": baseline, "loaded_mb": resident_mb()}
        self.document["runtime"].update(
            version=runtime.version, execution=runtime.execution, settings=runtime.config
        )
        for what, reason in runtime.caveats:
            self.missing.note(what, reason)
        facts = self.manifest["input"]
        rng = np.random.default_rng(0)
        self.arrays = [rng.integers(0, 256, facts["shape"]).astype(facts["dtype"])]

    def warm_up(self) -> None:
        """Run until times are stable."""
        self.output.progress("warming up")
        before = self.document["before"] = conditions()
        for name, reason in REASONS:
            if before[name] is None:
                self.missing.note(f"before.{name}", reason)
        # No warm-up makes an emulator's times mean something.
        limit = 1 if self.options.emulated else WARMUP_RUNS
        runs, stable = warm_up(self.call, self.arrays, limit)
        facts = time.get_clock_info("process_time" if self.counting else "perf_counter")
        clock = facts.implementation
        self.document["method"] = {
            "clock": f"{clock}, which counts instructions" if self.counting else clock,
            "clock_resolution_ns": None if self.counting else clock_resolution_ns(),
            "warmup_runs": runs,
            "warmup_stable": stable,
            "cores": self.options.cores,
            "start_temperature_limit_c": self.options.max_start_temp,
        }

    def time_calls(self) -> None:
        """Time calls, with their energy and memory."""
        options, meter = self.options, self.meter
        idle = self._idle_watts()
        self.output.progress("timing")
        seconds: list = []
        meter.start()
        watch = Watch()
        start = sampled = time.perf_counter()
        while len(seconds) < options.runs or time.perf_counter() - start < options.seconds:
            seconds.append(timed(self.call, self.arrays))
            if meter.sensor and time.perf_counter() - sampled > SAMPLE_S:
                meter.sample()
                sampled = time.perf_counter()
        self.document["interference"] = watch.reading()
        if self.document["interference"] is None:
            self.missing.note("interference", "the system has no /proc/stat")
        watts = meter.mean_watts()
        if watts is not None:
            passed = time.perf_counter() - start
            self.document["energy"] = {
                "source": meter.source,
                "per_run_mj": watts * passed / len(seconds) * 1e3,
                "mean_w": watts,
                "idle_w": idle,
            }
        self.document["latency"] = distribution(seconds)
        self._end_of_calls()

    def count_calls(self) -> None:
        """Count the instructions of calls, on an emulator whose clock does."""
        self.output.progress("counting instructions")
        counts = count_instructions(self.call, self.arrays, self.options.runs)
        self.document["instructions"] = counts
        for what in ("latency", "interference", "energy"):
            self.missing.note(what, "the clock of this device counts instructions")
        self._end_of_calls()

    def _end_of_calls(self) -> None:
        self.document["after"] = conditions()
        self.read_memory()
        self.output.document(self.document, final=False)

    def read_memory(self) -> None:
        """Read how much memory the calls took."""
        memory = self.document["memory"]
        memory["peak_mb"], memory["source"] = peak_mb()
        memory["steady_mb"] = resident_mb()
        if memory["steady_mb"] is None:
            self.missing.note("memory.steady_mb", "the system has no /proc/self/statm")

    def _idle_watts(self) -> float | None:
        if not self.meter.available:
            self.missing.note("energy", self.meter.reason)
            return None
        self.meter.start()
        time.sleep(IDLE_S)
        return self.meter.mean_watts()

    def watch_memory(self) -> None:
        """Run many more times and see whether memory grows."""
        memory = self.document["memory"]
        if not self.options.growth_runs or memory["steady_mb"] is None:
            return
        self.output.progress("watching memory")
        end, runs = time.perf_counter() + GROWTH_S, 0
        while runs < self.options.growth_runs and time.perf_counter() < end:
            self.call(self.arrays)
            runs += 1
        memory["growth_runs"] = runs
        memory["growth_mb"] = (resident_mb() or 0) - memory["steady_mb"]

    def time_operations(self) -> None:
        """Time single operations with the runtime's profiler, where it has one."""
        if not self.options.operations:
            return
        self.output.progress("timing operations")
        self.document["operations"] = self.runtime.operations(
            self.options.package / self.runtime.model,
            self.call,
            self.arrays,
            self.options.operations,
        )

    def measure_roofs(self) -> None:
        """Measure the machine's limits, and the model's parts where the host sent them."""
        options, document = self.options, self.document
        if not options.roofs:
            self.missing.note("roofs", "not requested")
            self.output.document(document, final=False)
            return
        self.output.progress("measuring the machine's roofs")
        bandwidth, method = measure_bandwidth(options.threads or len(machine.usable_cores()))
        roofs = {"bandwidth_gb_per_s": bandwidth, "bandwidth_method": method}
        if options.kit:
            runs = options.operations or KIT_RUNS
            roof, parts = time_kit(self.runtime, options.kit, self.call, self.arrays, runs)
            roofs.update(roof or {})
            document["operations"] = parts or document.get("operations")
        if "gmacs_per_s" not in roofs:
            reason = "no chain of matrix products was sent with the package"
            self.missing.note("roofs.gmacs_per_s", reason)
        if not document.get("operations"):
            reason = "this runtime has no profiler, and no parts were sent with the package"
            self.missing.note("operations", reason)
        document["roofs"] = roofs
        self.output.document(document, final=False)

    def sustain(self) -> None:
        """Run without a pause for a long time."""
        seconds = self.options.sustained
        if not seconds:
            self.missing.note("sustained", "not requested")
            return
        points: list = []
        self.document["sustained"] = {"requested_s": seconds, "points": points}
        sustain(self.call, self.arrays, seconds, self.meter, self.output, points)


def bind_to_cores(cores: list | None) -> None:
    """Restrict this process to some cores; None leaves it as it is."""
    if cores is None:
        return
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError) as error:
        raise Refusal(f"cannot bind to the cores {cores}: {error}") from None
