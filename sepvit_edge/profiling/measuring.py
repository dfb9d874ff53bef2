"""From packages and a device to documents: every package, every number of threads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SepViTError
from ..package.folder import Package
from ..package.manifest import Manifest
from .connections import Job, measure, open_host
from .devices import ADBConnection, AppFileConnection, Budgets, Device
from .document import Profile

CACHE = Path("~/.cache/sepvit-edge/kits")
_OPERATION_RUNS = 30


@dataclass(frozen=True)
class Plan:
    """How to measure; what is None is the device's own choice.

    Attributes
    ----------
    threads : tuple of int or None
        A measurement each; None is the runtime's choice.
    cores, execution, max_start_temp_c
        As in `sepvit_edge.profiling.devices.Measuring`.
    sustained_s : float
        0: none.
    operations : bool
        Also time operations and the machine's roofs.
    repeat : int
        Measurements of each, in processes of their own.
    bootstrap : bool
        Make an environment with the runtime on the device.
    binary : Path or None
        An `executor_runner` for the device, in place of the app.
    """

    threads: tuple[int | None, ...] | None = None
    cores: str | None = None
    execution: str | None = None
    max_start_temp_c: float | None = None
    sustained_s: float = 0
    operations: bool = True
    repeat: int = 1
    bootstrap: bool = False
    binary: Path | None = None


def measure_packages(
    packages: Sequence[Package],
    name: str,
    device: Device,
    plan: Plan,
    step: Callable[[str], None] = lambda _: None,
) -> list[Profile]:
    """Measure packages on a device.

    Parameters
    ----------
    packages : sequence of Package
        Checked.
    name : str
        What the documents call the device.
    device : Device
        Of profiles/.
    plan : Plan
        What to measure.
    step : callable
        Told what is being done.

    Returns
    -------
    list of Profile
        A document each; the last one is marked incomplete where the device went away.

    Raises
    ------
    SepViTError
        If the device cannot be reached, or nothing could be measured.
    """
    threads = plan.threads or tuple(device.measuring.threads) or (None,)
    wanted = [(p, t) for p in packages for t in threads for _ in range(plan.repeat)]
    if isinstance(device.connection, AppFileConnection):
        raise SepViTError(
            f"{name} cannot be reached from here: export the document in the app, and give it "
            "by --app-file"
        )
    if isinstance(device.connection, ADBConnection):
        return [
            _by_adb(device.connection, package, name, count, device, plan, step)
            for package, count in wanted
        ]
    if plan.binary is not None:
        raise SepViTError(f"--binary is for devices that are reached by adb; {name} is not")
    return asyncio.run(_on_host(wanted, name, device, plan, step))


def _by_adb(
    connection: ADBConnection,
    package: Package,
    name: str,
    threads: int | None,
    device: Device,
    plan: Plan,
    step: Callable[[str], None],
) -> Profile:
    runs = device.measuring.runs
    if plan.binary is None:
        from .connections.adb import measure_by_adb

        return measure_by_adb(
            connection,
            package,
            name=name,
            threads=threads,
            runs=runs,
            sustained_s=plan.sustained_s,
            step=step,
        )
    from .connections.executor_runner import measure_by_executor_runner

    profile = measure_by_executor_runner(
        connection, package, plan.binary, name=name, threads=threads, runs=runs, step=step
    )
    return attributed(profile, package.manifest)


async def _on_host(
    wanted: list[tuple[Package, int | None]],
    name: str,
    device: Device,
    plan: Plan,
    step: Callable[[str], None],
) -> list[Profile]:
    found: list[Profile] = []
    async with open_host(device.connection) as host:
        for package, threads in wanted:
            manifest = package.manifest
            title = f"{package.path.name}, {threads or 'default'} threads"

            def titled(text: str, title: str = title) -> None:
                step(f"{title}: {text}")

            look = plan.operations and not device.emulated
            arguments = runner_arguments(name, device, plan, threads, look)
            kit = make_kit(manifest, titled) if look else None
            profile = await measure(host, Job(package, arguments, kit), plan.bootstrap, titled)
            found.append(attributed(profile, manifest) if profile.complete else profile)
            if profile.golden is not None and profile.golden.passed and not profile.complete:
                break  # the device went away
    return found


def make_kit(manifest: Manifest, step: Callable[[str], None]) -> Path | None:
    """Lower the programs that are timed beside a package."""
    from .kit import make_kit

    return make_kit(manifest, CACHE.expanduser(), step)


def runner_arguments(
    name: str, device: Device, plan: Plan, threads: int | None, look: bool
) -> list[str]:
    """Options of the runner for one measurement."""
    own = device.measuring
    options: dict[str, object] = {
        "--device-name": name,
        "--threads": threads,
        "--cores": plan.cores or own.cores,
        "--execution": plan.execution or own.execution,
        "--max-start-temp": plan.max_start_temp_c or own.max_start_temp_c,
        "--runs": own.runs,
        "--seconds": own.seconds,
        "--starts": own.starts,
        "--growth-runs": own.growth_runs,
        "--sustained": plan.sustained_s,
        "--operations": _OPERATION_RUNS if look else 0,
    }
    arguments = [str(x) for pair in options.items() if pair[1] is not None for x in pair]
    return arguments + ["--roofs"] * look + ["--emulated"] * device.emulated


def attributed(profile: Profile, manifest: Manifest) -> Profile:
    """Add the attribution to a document that has times of operations."""
    if profile.operations is None:
        return profile
    from .attribution import attribute, program_of, work_by_part

    work = work_by_part(program_of(manifest), manifest.precision)
    return profile.model_copy(update={"attribution": attribute(profile.operations, work)})


def with_etdump(profile: Profile, manifest: Manifest, path: Path) -> Profile:
    """Attribute the times of an ETDump, which the same package gave elsewhere, to its parts.

    Raises
    ------
    SepViTError
        If it cannot be read, or is of another package.
    """
    from .etdump import operations_of, read_etdump

    operations = operations_of(read_etdump(path), manifest)
    return attributed(profile.model_copy(update={"operations": operations}), manifest)


def seconds_of(text: str) -> float:
    """Read a length of time: ``90``, ``90s``, ``30m``, ``1h``.

    Raises
    ------
    SepViTError
        If it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise SepViTError(f"{text!r} is no length of time; write for example 90s, 30m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@dataclass(frozen=True)
class BudgetLine:
    """One budget and what was measured.

    Attributes
    ----------
    title : str
        Of the measurement.
    what : str
        Which figure.
    measured : float or None
        None where it could not be measured.
    limit : float
        The budget.
    unit : str
        ``"ms"`` or ``"MB"``.
    """

    title: str
    what: str
    measured: float | None
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        """What was not measured does not hold."""
        return self.measured is not None and self.measured <= self.limit


def check_budgets(profiles: Sequence[Profile], budgets: Budgets) -> list[BudgetLine]:
    """Hold measurements against a device's budgets; emulated times are held against nothing."""
    lines = []
    for profile in profiles:
        p90 = profile.latency.p90_ms if profile.latency else None
        peak = profile.memory.peak_mb if profile.memory else None
        figures = [
            ("p90 latency", p90, None if profile.emulated else budgets.p90_ms, "ms"),
            ("peak memory", peak, None if profile.emulated else budgets.peak_mb, "MB"),
            ("model on disk", profile.package.model_mb, budgets.model_mb, "MB"),
        ]
        lines += [
            BudgetLine(title_of(profile), what, measured, limit, unit)
            for what, measured, limit, unit in figures
            if limit is not None
        ]
    return lines


def slower_than_fp32(profiles: Sequence[Profile]) -> list[str]:
    """Name int8 measurements whose median is above that of the same model in fp32 beside them."""

    def key(profile: Profile) -> tuple[object, ...]:
        package, runtime = profile.package, profile.runtime
        shape = (package.variant, package.image_size, package.batch, package.target)
        return (*shape, profile.device.name, runtime.threads)

    timed = [(p, p.latency.p50_ms) for p in profiles if p.latency is not None and not p.emulated]
    floats = {key(p): p50 for p, p50 in timed if p.package.precision == "fp32"}
    return [
        f"{title_of(p)}: int8 is slower than fp32 on {p.device.name} "
        f"({p50:.2f} against {floats[key(p)]:.2f} ms); use the fp32 package there"
        for p, p50 in timed
        if p.package.precision == "int8" and p50 > floats.get(key(p), float("inf"))
    ]


def title_of(profile: Profile) -> str:
    """Name a measurement within one device: ``lite 224 openvino fp32, 2 threads``."""
    package, threads = profile.package, profile.runtime.threads
    count = "default threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"
    batch = f" batch {package.batch}" if package.batch > 1 else ""
    what = f"{package.variant} {package.image_size}{batch} {package.target} {package.precision}"
    return f"{what}, {count}"
