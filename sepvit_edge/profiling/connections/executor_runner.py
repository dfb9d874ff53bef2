"""Android devices without the app: an `executor_runner` that the user built measures.

It reads inputs from files and writes outputs to files, so the golden vectors are checked as on
other devices. It writes the time of a single run to an ETDump only: it must be built with the
event tracer, whose own cost is in the times. (Options: ExecuTorch's
examples/portable/executor_runner/executor_runner.cpp.)
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...errors import SepViTError
from ...package.folder import Package
from ..devices import ADBConnection
from ..document import (
    SCHEMA_VERSION,
    Device,
    Golden,
    Latency,
    Method,
    NotMeasured,
    Producer,
    Profile,
    ProfiledPackage,
    RuntimeUsed,
)
from ..etdump import Dump, operations_of, read_etdump
from ..runner.golden import check_golden, golden_sentence
from ..runner.latency import PIECE, STABLE, distribution
from .adb import AndroidDevice, open_device
from .interface import Step

FOLDER = "/data/local/tmp/sepvit-edge"  # where Android lets the shell run programs
_MODEL, _BINARY, _INPUT, _OUTPUT, _DUMP = "model.pte", "executor_runner", "in", "out", "run.etdump"
_WARMUP_RUNS = 2 * PIECE
_NOT_MEASURED = [
    NotMeasured(what=what, reason="executor_runner does not measure it")
    for what in ["cold_start", "preprocessing", "memory", "energy", "sustained", "before", "roofs"]
]


def measure_by_executor_runner(
    connection: ADBConnection,
    package: Package,
    binary: Path,
    *,
    name: str,
    threads: int | None,
    runs: int,
    step: Step,
) -> Profile:
    """Let an `executor_runner` on a device measure a package.

    Parameters
    ----------
    connection : ADBConnection
        The device.
    package : Package
        For ExecuTorch.
    binary : Path
        The program, built for the device, with XNNPACK and the event tracer.
    name : str
        Name of the device in the document.
    threads : int or None
        Threads of the runtime. Default: the program decides.
    runs : int
        Number of timed runs.
    step : callable
        Called with the name of each step, for a progress display.

    Raises
    ------
    SepViTError
        If the device or the program fails; the sentence says why.
    """
    manifest = package.manifest
    _check(package, binary)
    with open_device(connection) as device:
        step("copying files to the device")
        program = _Program(device, package, binary, threads, connection.run_timeout_s)
        step("running the golden vectors")
        facts = manifest.model_dump(mode="json")
        golden = check_golden(facts, package.golden(), program.call)
        found = {
            "schema_version": SCHEMA_VERSION,
            "producer": Producer(name="executor-runner", version=version("sepvit-edge")),
            "package": _profiled(package),
            "runtime": RuntimeUsed(
                name="executorch", version="unknown", execution="XNNPACK", threads=threads
            ),
            "device": _describe(device, name),
            "golden": Golden.model_validate(golden),
            "not_measured": _NOT_MEASURED,
        }
        if not golden["passed"]:
            reason = golden_sentence(golden)
            return Profile(complete=False, incomplete_reason=reason, **found)
        step("timing")
        dump = program.record(_WARMUP_RUNS, runs)
    return Profile(
        complete=True,
        method=Method(
            clock="executor_runner's own, by its event tracer",
            warmup_runs=_WARMUP_RUNS,
            warmup_stable=_stable(dump),
        ),
        latency=Latency.model_validate(distribution([us / 1e6 for us in dump.runs_us])),
        operations=operations_of(dump, manifest),
        **found,
    )


def _check(package: Package, binary: Path) -> None:
    """Refuse a package or a program that cannot work."""
    if package.manifest.target != "executorch":
        raise SepViTError(
            f"--binary takes an executor_runner, which runs ExecuTorch's packages; {package.path} "
            f"is for {package.manifest.target}"
        )
    if not binary.is_file():
        raise SepViTError(f"there is no program {binary}")


class _Program:
    """The program in its folder on the device, where it is copied with the package's model."""

    def __init__(
        self,
        device: AndroidDevice,
        package: Package,
        binary: Path,
        threads: int | None,
        timeout_s: float,
    ) -> None:
        self._device, self._binary = device, binary
        self._threads, self._timeout_s = threads, timeout_s
        self._folder = f"{FOLDER}/{package.manifest.digest[:16]}"
        device.place({_MODEL: package.path / _MODEL, _BINARY: binary}, self._folder)
        device.run(f"chmod 755 {self._folder}/{_BINARY}")

    def _run(self, executions: int, *options: str) -> None:
        flags = [f"--model_path={_MODEL}", f"--inputs={_INPUT}", f"--etdump_path={_DUMP}"]
        flags += [f"--num_executions={executions}", *options]
        if self._threads is not None:
            flags.append(f"--cpu_threads={self._threads}")
        command = f"cd {self._folder} && ./{_BINARY} {' '.join(flags)}"
        try:
            self._device.run(command, what=self._binary.name, timeout_s=self._timeout_s)
        except SepViTError as error:
            if "etdump_path" not in str(error):
                raise
            raise SepViTError(
                f"{self._binary} has no event tracer, without which single runs cannot be timed; "
                "build it with -DEXECUTORCH_BUILD_DEVTOOLS=ON -DEXECUTORCH_ENABLE_EVENT_TRACER=ON"
            ) from None

    def call(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Run one batch on the device and return the logits (B, classes)."""
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / _INPUT
            file.write_bytes(np.ascontiguousarray(arrays[0]).tobytes())
            self._device.place({_INPUT: file}, self._folder)
        self._run(1, f"--output_file={_OUTPUT}")
        data = self._device.fetch(f"{self._folder}/{_OUTPUT}-0.bin")
        return [np.frombuffer(data, np.float32).reshape(len(arrays[0]), -1)]

    def record(self, warm_up: int, runs: int) -> Dump:
        """Run under the event tracer; the input is the last one of `call`."""
        self._run(warm_up + runs)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / _DUMP
            file.write_bytes(self._device.fetch(f"{self._folder}/{_DUMP}"))
            return read_etdump(file, skip=warm_up)


def _profiled(package: Package) -> ProfiledPackage:
    manifest = package.manifest
    return ProfiledPackage(
        digest=manifest.digest,
        variant=manifest.model.variant,
        target=manifest.target,
        precision=manifest.precision,
        image_size=manifest.model.image_size,
        num_classes=manifest.model.num_classes,
        batch=manifest.input.shape[0],
        model_mb=package.size / 1e6,
        macs=manifest.model.macs,
    )


def _describe(device: AndroidDevice, name: str) -> Device:
    """Read the device's facts from Android's properties."""

    def told(command: str) -> str | None:
        return device.run(command, check=False) or None

    cores = told("nproc") or ""
    return Device(
        name=name,
        model=told("getprop ro.product.model"),
        soc=told("getprop ro.soc.model"),
        architecture=told("uname -m"),
        os="Android",
        os_version=told("getprop ro.build.version.release"),
        logical_cores=int(cores) if cores.isdigit() else None,
    )


def _stable(dump: Dump) -> bool:
    """Whether the first timed runs were as fast as the next, by the runner's rule for warm-up."""
    first, then = dump.runs_us[:PIECE], dump.runs_us[PIECE : 2 * PIECE]
    if not then:
        return False
    return bool(abs(np.median(then) - np.median(first)) <= STABLE * np.median(first))
