"""Measure packages on a device: `python -m sepvit_edge.profile PACKAGE [--device NAME]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, console, emit_json, print_columns, print_table, steps

if TYPE_CHECKING:
    from .profiling.devices import Device
    from .profiling.document import Profile
    from .profiling.measuring import BudgetLine, Plan


@command
def main(
    packages: Annotated[
        list[Path] | None, typer.Argument(help="Folders of packages.", show_default=False)
    ] = None,
    device: Annotated[
        str, typer.Option(help="A device's name in profiles/, or a TOML file.")
    ] = "local",
    threads: Annotated[
        str, typer.Option(help="Numbers of threads, a measurement each, for example 1,2,4.")
    ] = "",
    sustained: Annotated[
        str, typer.Option(metavar="TIME", help="Also run without a pause for 90s, 30m, 1h.")
    ] = "",
    cores: Annotated[str, typer.Option(help="Bind to these cores, for example 4-7.")] = "",
    execution: Annotated[
        str, typer.Option(help="OpenVINO's device (NPU), or ONNX Runtime's provider.")
    ] = "",
    max_start_temp: Annotated[
        float | None,
        typer.Option(metavar="C", help="Cool down to this before each measurement.", min=0),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="Measure each so often, in processes of their own.")
    ] = 1,
    operations: Annotated[
        bool, typer.Option(help="Also time single operations and the machine's roofs.")
    ] = True,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Install the runtime on the device, if needed.")
    ] = False,
    binary: Annotated[
        Path | None,
        typer.Option(help="An executor_runner for the device (adb), in place of the app."),
    ] = None,
    etdump: Annotated[
        Path | None,
        typer.Option(help="Times of operations that ExecuTorch's event tracer wrote."),
    ] = None,
    app_file: Annotated[
        Path | None, typer.Option(help="The document that an app exported, instead of measuring.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Write a report of one file.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Write a Chrome trace for Perfetto.")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the documents in the folder of results.")
    ] = False,
    results: Annotated[Path, typer.Option(help="The folder of results.")] = Path(
        "profiles/results"
    ),
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Say what changed from result A to result B."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Per cent that may become worse in a comparison.")
    ] = 5,
    table: Annotated[
        bool, typer.Option("--table", help="Print the results as README's table.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the documents as JSON.")] = False,
) -> None:
    """Measure packages on a device: latency, memory, start, heat, and where the time goes.

    The package's golden vectors are checked on the device first; one that computes something else
    is not timed. Exit status 1 means: golden vectors differ, a budget is broken, a comparison found
    a regression, or the device went away in the middle.
    """
    from .errors import CheckFailed, SepViTError
    from .package.folder import Package
    from .profiling.devices import load_device
    from .profiling.measuring import check_budgets, measure_packages, with_etdump

    if table:
        if packages or app_file or report or trace or save:
            raise SepViTError(
                "--table prints the results that were kept and measures nothing; leave packages, "
                "--app-file, --report, --trace and --save out"
            )
        from .profiling.results import load_all, markdown_table

        print(markdown_table(load_all(results)))
        return
    if compare is not None:
        _compare(*compare, tolerance / 100, json)
        return
    name, facts = load_device(device)
    plan = _plan(
        threads, sustained, cores, execution, max_start_temp, operations, repeat, bootstrap, binary
    )
    if not packages and app_file is None:
        raise SepViTError("name a package; python -m sepvit_edge.export makes one")
    if save and facts.emulated:
        raise SepViTError("an emulated device has no times to keep; leave --save out")
    opened = [Package(path) for path in packages or []]
    if etdump is not None and len(opened) != 1:
        raise SepViTError("--etdump belongs to one package: name the one that it was recorded with")
    if app_file is not None:
        from .profiling.connections.app_file import read_app_file

        profiles = [read_app_file(app_file, opened)]
    else:
        with steps() as step:
            profiles = measure_packages(opened, name, facts, plan, step)
    if etdump is not None:
        manifest = opened[0].manifest
        profiles = [with_etdump(profile, manifest, etdump) for profile in profiles]
    budgets = check_budgets(profiles, facts.budgets)
    if save:
        from .profiling.results import save as keep

        for profile in profiles:
            keep(profile, results)
    if report is not None:
        from .profiling.report import write_report

        write_report(profiles, budgets, facts, _again(), report)
    if trace is not None:
        from .profiling.trace import write_trace

        write_trace(profiles, trace)
    if json:
        emit_json([profile.model_dump(mode="json") for profile in profiles])
    else:
        _print(profiles, budgets, facts)
    faults = [f"{p.incomplete_reason}" for p in profiles if not p.complete]
    faults += [
        f"{line.title}: {line.what} {_measured(line)} breaks the budget of "
        f"{line.limit:g} {line.unit}"
        for line in budgets
        if not line.holds
    ]
    if faults:
        raise CheckFailed("; ".join(faults))


def _plan(
    threads: str,
    sustained: str,
    cores: str,
    execution: str,
    max_start_temp: float | None,
    operations: bool,
    repeat: int,
    bootstrap: bool,
    binary: Path | None,
) -> Plan:
    from .errors import SepViTError
    from .profiling.measuring import Plan, seconds_of

    try:
        counts = tuple(int(text) for text in threads.split(",")) if threads else None
    except ValueError:
        counts = (0,)
    if counts is not None and min(counts) < 1:
        raise SepViTError(f"--threads takes numbers from 1, for example 1,2,4, not {threads!r}")
    return Plan(
        threads=counts,
        cores=cores or None,
        execution=execution or None,
        max_start_temp_c=max_start_temp,
        sustained_s=seconds_of(sustained) if sustained else 0,
        operations=operations,
        repeat=repeat,
        bootstrap=bootstrap,
        binary=binary,
    )


def _again() -> str:
    """Return the command as it was given."""
    import shlex
    import sys

    return shlex.join(["python", "-m", "sepvit_edge.profile", *sys.argv[1:]])


def _print(profiles: Sequence[Profile], budgets: Sequence[BudgetLine], device: Device) -> None:
    from .profiling.measuring import slower_than_fp32, title_of

    for profile in profiles:
        print_table(f"{profile.device.name}: {title_of(profile)}", summary(profile))
    if budgets:
        rows = [
            [b.title, b.what, _measured(b), f"{b.limit:g} {b.unit}", "ok" if b.holds else "broken"]
            for b in budgets
        ]
        print_columns(["budgets", "", "measured", "limit", ""], rows)
    for sentence in slower_than_fp32(profiles):
        console.print(sentence, style="bold")
    for note in device.notes:
        console.print(f"note: {note}", style="dim")


def _measured(line: BudgetLine) -> str:
    return "not measured" if line.measured is None else f"{line.measured:.2f} {line.unit}"


def summary(profile: Profile) -> list[tuple[str, str]]:
    """Rows of the table of one measurement."""
    rows: list[tuple[str, str]] = []
    if profile.emulated:
        rows.append(("EMULATED", "every time below is the emulator's and means nothing"))
    if not profile.complete:
        rows.append(("INCOMPLETE", profile.incomplete_reason or ""))
    rows.append(("runtime", f"{profile.runtime.name} {profile.runtime.version}"))
    if (golden := profile.golden) is not None:
        distance = "identical" if golden.sqnr_db is None else f"{golden.sqnr_db:.1f} dB"
        needed = f"{golden.images} images, {golden.minimum_sqnr_db:.0f} dB needed"
        rows.append(("golden vectors", f"{distance} ({needed})"))
    if (latency := profile.latency) is not None:
        rows += [
            (
                "latency",
                f"p50 {latency.p50_ms:.2f} ms ({latency.runs} run{'s' * (latency.runs > 1)})",
            ),
            ("", ""),
            ("p90, p99", f"{latency.p90_ms:.2f}, {latency.p99_ms:.2f} ms"),
            ("mean, max", f"{latency.mean_ms:.2f}, {latency.max_ms:.2f} ms"),
        ]
    if (start := profile.cold_start) is not None:
        parts = f"load {start.load_ms:.0f}, first run {start.first_run_ms:.0f}"
        rows.append(("cold start", f"{start.total_ms:.0f} ms ({parts})"))
    if profile.preprocessing is not None:
        rows.append(("preprocessing", f"p50 {profile.preprocessing.p50_ms:.2f} ms"))
    if (memory := profile.memory) is not None:
        rows.append(("resident memory", _memory(profile)))
        if memory.growth_mb is not None:
            rows.append(("growth", f"{memory.growth_mb:+.1f} MB over {memory.growth_runs} runs"))
    if (energy := profile.energy) is not None:
        rows.append(("energy", f"{energy.per_run_mj:.1f} mJ a run, {energy.mean_w:.1f} W"))
    if profile.sustained is not None and profile.sustained.points:
        first, last = profile.sustained.points[0], profile.sustained.points[-1]
        after = f"p50 {first.p50_ms:.2f} ms at first, {last.p50_ms:.2f} ms at the end"
        rows.append(("sustained", f"{last.time_s:.0f} s: {after}"))
    if (attribution := profile.attribution) is not None:
        from .profiling.parts import by_kind

        rows.append(("", ""))
        for kind, time in by_kind(attribution).items():
            rows.append((kind, f"{time / attribution.whole_us:6.1%}  {time / 1e3:.2f} ms"))
        rows.append(("unattributed", f"{attribution.unattributed_share:6.1%}"))
        rows.append(("obtained by", attribution.obtained))
    if profile.not_measured:
        rows.append(("", ""))
        rows += [(f"no {item.what}", item.reason) for item in profile.not_measured]
    return rows


def _memory(profile: Profile) -> str:
    assert profile.memory is not None
    memory = profile.memory
    values = (
        ("peak", memory.peak_mb),
        ("steady", memory.steady_mb),
        ("before", memory.baseline_mb),
    )
    return ", ".join(f"{name} {value:.0f} MB" for name, value in values if value is not None)


def _compare(first: Path, second: Path, tolerance: float, json: bool) -> None:
    from dataclasses import asdict

    from .errors import CheckFailed
    from .profiling.compare import compare
    from .profiling.results import load

    changes = compare(load(first), load(second), tolerance)
    if json:
        emit_json([asdict(change) | {"ratio": change.ratio} for change in changes])
    else:
        verdicts = {True: "significant", False: "may be chance", None: "single reading"}
        rows = []
        for c in changes:
            interval = f"{c.interval[0]:.3f}-{c.interval[1]:.3f}" if c.interval else "-"
            rows.append(
                [
                    c.title,
                    c.what,
                    f"{c.before:.2f} {c.unit}",
                    f"{c.after:.2f} {c.unit}",
                    f"{c.ratio:.3f}",
                    interval,
                    "REGRESSION" if c.regression else verdicts[c.significant],
                ]
            )
        print_columns(["", "", "before", "after", "ratio", "95 % interval", ""], rows)
    worse = [f"{c.title}: {c.what} {c.ratio - 1:+.1%}" for c in changes if c.regression]
    if worse:
        raise CheckFailed(f"worse by more than {tolerance:.0%}: {'; '.join(worse)}")


if __name__ == "__main__":
    main()
