"""From packages and a device to documents: every package, every number of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ..errors import SepViTError
from ..package.folder import Package
from ..package.signature import Keys
from .connections.hosts import open_host
from .connections.interface import Step
from .connections.run import Job, option_words, pairs_on_host, run_on_host
from .devices import ADBConnection, AppFileConnection, DeviceFile
from .document import Profile
from .judge import judged
from .pairs import Pairs
from .steps import check_machine, measure_images

_OPERATION_RUNS = 30


@dataclass(frozen=True)
class Request:
    """How to measure; None leaves the choice to the device's file.

    Attributes
    ----------
    threads : tuple of int or None
        Numbers of threads, a measurement each; a None among them is the runtime's choice.
    cores, execution, max_start_temp_c
        As in `sepvit_edge.profiling.devices.Measuring`.
    sustained_s : float
        Length of the sustained run; 0 for none.
    operations : bool
        Whether to time operations and the machine's roofs too.
    repeat : int
        Measurements of each package, each in a new process.
    bootstrap : bool
        Whether to make an environment with the runtime on the device.
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
    device: DeviceFile,
    request: Request,
    step: Step = lambda _: None,
) -> list[Profile]:
    """Measure packages on a device.

    Parameters
    ----------
    packages : sequence of Package
        Packages that were opened, so their files are checked.
    name : str
        Name of the device in the documents.
    device : DeviceFile
        The device's file in profiles/.
    request : Request
        What to measure.
    step : callable
        Called with the name of each step, for a progress display.

    Returns
    -------
    list of Profile
        A document for each measurement, dated and judged; the last one is marked incomplete where
        the device went away.

    Raises
    ------
    SepViTError
        If the device cannot be reached, or nothing could be measured.
    """
    for package in packages:
        if package.manifest.graphs:
            check_machine(package, name, device, request.execution or device.measuring.execution)
    date = now()
    found = _measured(packages, name, device, request, step)
    return judged([profile.model_copy(update={"date": date}) for profile in found])


def now() -> datetime:
    """Return the time in UTC, to the second: the date of a document."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def _measured(
    packages: Sequence[Package], name: str, device: DeviceFile, request: Request, step: Step
) -> list[Profile]:
    if device.clock == "instructions" and request.sustained_s:
        raise SepViTError(f"the clock of {name} counts instructions; leave --sustained out")
    threads = request.threads or tuple(device.measuring.threads) or (None,)
    wanted = [(p, t) for p in packages for t in threads for _ in range(request.repeat)]
    if isinstance(device.connection, AppFileConnection):
        raise SepViTError(
            f"{name} cannot be reached from here: export the document in the app, and give it "
            "by --app-file"
        )
    if isinstance(device.connection, ADBConnection):
        return [
            _by_adb(device.connection, package, name, count, device, request, step)
            for package, count in wanted
        ]
    if request.binary is not None:
        raise SepViTError(f"--binary is for devices that are reached by adb; {name} is not")
    return asyncio.run(_on_host(wanted, name, device, request, step))


def measure_pairs(
    first: Package,
    second: Package,
    name: str,
    device: DeviceFile,
    request: Request,
    step: Step = lambda _: None,
) -> Pairs:
    """Time two packages in turn on a device; see `measure_packages`.

    Raises
    ------
    SepViTError
        If the device's runner cannot, or nothing could be measured.
    """
    for package in (first, second):
        if package.manifest.graphs:
            raise SepViTError(
                f"{package.path} is for {package.manifest.task}: --ab times packages of one graph; "
                "profile this one alone"
            )
    threads = request.threads or tuple(device.measuring.threads[:1]) or (None,)
    if len(threads) > 1:
        raise SepViTError("--ab times with one number of threads; name one by --threads")
    if device.connection.kind in ("adb", "app-file"):
        raise SepViTError(
            f"the app on {name} times one package at a time; --ab is for devices on which Python "
            "runs (local, ssh, labgrid)"
        )
    if device.emulated:
        raise SepViTError("times of an emulated device mean nothing; choose a real one")
    arguments = runner_arguments(name, device, request, threads[0], look=False)

    async def run() -> Pairs:
        async with open_host(device.connection) as host:
            jobs = (Job(first), Job(second))
            return await pairs_on_host(host, jobs, arguments, request.bootstrap, step)

    return asyncio.run(run())


def _by_adb(
    connection: ADBConnection,
    package: Package,
    name: str,
    threads: int | None,
    device: DeviceFile,
    request: Request,
    step: Step,
) -> Profile:
    runs = device.measuring.runs
    if request.binary is None:
        from .connections.adb import measure_by_adb

        return measure_by_adb(
            connection,
            package,
            name=name,
            threads=threads,
            runs=runs,
            sustained_s=request.sustained_s,
            step=step,
        )
    from .attribution import attributed
    from .connections.executor_runner import measure_by_executor_runner

    profile = measure_by_executor_runner(
        connection, package, request.binary, name=name, threads=threads, runs=runs, step=step
    )
    return attributed(profile, package.manifest)


async def _on_host(
    wanted: Sequence[tuple[Package, int | None]],
    name: str,
    device: DeviceFile,
    request: Request,
    step: Step,
) -> list[Profile]:
    from .attribution import attributed
    from .kit import make_kit

    found: list[Profile] = []
    async with open_host(device.connection) as host:
        for package, threads in wanted:
            manifest = package.manifest
            title = f"{package.path.name}, {threads or 'default'} threads"

            def titled(text: str, title: str = title) -> None:
                step(f"{title}: {text}")

            look = request.operations and not device.emulated and not manifest.graphs
            arguments = runner_arguments(name, device, request, threads, look)
            if manifest.graphs:
                found.append(measure_images(package, arguments, titled))
                continue
            kit = make_kit(manifest, titled) if look else None
            job = Job(package, arguments, kit)
            profile = await run_on_host(host, job, request.bootstrap, titled)
            found.append(attributed(profile, manifest) if profile.complete else profile)
            if profile.golden is not None and profile.golden.passed and not profile.complete:
                break  # the device went away
    return found


def runner_arguments(
    name: str, device: DeviceFile, request: Request, threads: int | None, look: bool
) -> list[str]:
    """Return the options of the runner for one measurement; `look`: also time operations."""
    own = device.measuring
    options: dict[str, object] = {
        "--device-name": name,
        "--clock": device.clock,
        "--threads": threads,
        "--cores": request.cores or own.cores,
        "--execution": request.execution or own.execution,
        "--max-start-temp": request.max_start_temp_c or own.max_start_temp_c,
        "--runs": own.runs,
        "--seconds": own.seconds,
        "--starts": own.starts,
        "--growth-runs": own.growth_runs,
        "--sustained": request.sustained_s,
        "--operations": _OPERATION_RUNS if look else 0,
    }
    return option_words(options) + ["--roofs"] * look + ["--emulated"] * device.emulated


def obtain_profiles(
    paths: Sequence[Path],
    name: str,
    device: DeviceFile,
    request: Request,
    step: Step = lambda _: None,
    *,
    app_file: Path | None = None,
    etdump: Path | None = None,
    trust: Keys | None = None,
) -> list[Profile]:
    """Measure packages, or read the document that an app exported.

    Parameters
    ----------
    paths : sequence of Path
        Folders of packages.
    name, device, request, step
        As for `measure_packages`.
    app_file : Path or None
        A document to read instead of measuring; it must be about one of the packages.
    etdump : Path or None
        Times of operations that ExecuTorch's event tracer wrote for the one package.
    trust : path or sequence of paths, optional
        Files of public keys of which one must have signed each package.

    Raises
    ------
    SepViTError
        If there is nothing to measure, a file is not valid, or the device cannot be reached.
    """
    if not paths and app_file is None:
        raise SepViTError("name a package; sepvit-edge export makes one")
    packages = [Package(path, trust) for path in paths]
    if etdump is not None and len(packages) != 1:
        raise SepViTError("--etdump belongs to one package: name the one that it was recorded with")
    if etdump is not None and packages[0].manifest.graphs:
        raise SepViTError(f"--etdump is of one graph, and {packages[0].path} has several")
    if app_file is not None:
        from .connections.app_file import read_app_file

        profile = read_app_file(app_file, packages)
        profiles = judged([profile.model_copy(update={"date": profile.date or now()})])
    else:
        profiles = measure_packages(packages, name, device, request, step)
    if etdump is None:
        return profiles
    from .etdump import with_etdump

    return [with_etdump(profile, packages[0].manifest, etdump) for profile in profiles]
