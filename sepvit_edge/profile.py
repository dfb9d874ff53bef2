"""Measure packages on a device: `python -m sepvit_edge.profile PACKAGE [--device NAME]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, emit_json, steps

if TYPE_CHECKING:
    from .profiling.budgets import BudgetLine
    from .profiling.devices import DeviceFile
    from .profiling.document import Profile


@command
def main(
    packages: Annotated[
        list[Path] | None, typer.Argument(help="Folders of packages.", show_default=False)
    ] = None,
    device: Annotated[
        str, typer.Option(help="Name of a device in profiles/, or a TOML file.")
    ] = "local",
    threads: Annotated[
        str, typer.Option(help="Numbers of threads, each measured, for example 1,2,4.")
    ] = "",
    sustained: Annotated[
        str, typer.Option(metavar="TIME", help="Also run without a pause, for 90s, 30m or 1h.")
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
        int, typer.Option(min=1, help="Repeat each measurement, each time in a new process.")
    ] = 1,
    operations: Annotated[
        bool, typer.Option(help="Also time single operations and the machine's roofs.")
    ] = True,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Install the runtime on the device if needed.")
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
        Path | None, typer.Option(metavar="HTML", help="Write a report as one HTML file.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Write a Chrome trace for Perfetto.")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the documents in the folder of results.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Folder of results.")] = Path("profiles/results"),
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Show what changed from result A to result B."),
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

    The package's golden vectors are checked on the device first; a package with other logits there
    is not timed. Exit status 1 means: golden vectors differ, a budget is broken, a comparison found
    a regression, or the device went away in the middle.
    """
    from .cli.numbers import seconds_of, whole_numbers
    from .cli.profile_tables import print_profiles
    from .errors import CheckFailed, SepViTError
    from .profiling.budgets import check_budgets, faults
    from .profiling.devices import load_device
    from .profiling.measuring import Request, obtain_profiles

    if table:
        if packages or app_file or report or trace or save:
            raise SepViTError(
                "--table prints the results that were kept and measures nothing; leave packages, "
                "--app-file, --report, --trace and --save out"
            )
        return _print_table(results)
    if compare is not None:
        return _compare(*compare, tolerance / 100, json)
    name, facts = load_device(device)
    request = Request(
        threads=whole_numbers(threads, "--threads", "1,2,4") or None,
        cores=cores or None,
        execution=execution or None,
        max_start_temp_c=max_start_temp,
        sustained_s=seconds_of(sustained),
        operations=operations,
        repeat=repeat,
        bootstrap=bootstrap,
        binary=binary,
    )
    if save and facts.emulated:
        raise SepViTError("times of an emulated device are not kept; leave --save out")
    with steps() as step:
        profiles = obtain_profiles(
            packages or [], name, facts, request, step, app_file=app_file, etdump=etdump
        )
    budgets = check_budgets(profiles, facts.budgets)
    _write(profiles, budgets, facts, results if save else None, report, trace)
    if json:
        emit_json([profile.model_dump(mode="json") for profile in profiles])
    else:
        print_profiles(profiles, budgets, facts)
    if found := faults(profiles, budgets):
        raise CheckFailed("; ".join(found))


def _write(
    profiles: Sequence[Profile],
    budgets: Sequence[BudgetLine],
    device: DeviceFile,
    results: Path | None,
    report: Path | None,
    trace: Path | None,
) -> None:
    """Write what was asked for: documents in the folder of results, a report, a trace."""
    if results is not None:
        from .profiling.results import save_result

        for profile in profiles:
            save_result(profile, results)
    if report is not None:
        from .profiling.report import write_report

        write_report(profiles, budgets, device, _command_line(), report)
    if trace is not None:
        from .profiling.trace import write_trace

        write_trace(profiles, trace)


def _command_line() -> str:
    """Return the command as it was given."""
    import shlex
    import sys

    return shlex.join(["python", "-m", "sepvit_edge.profile", *sys.argv[1:]])


def _print_table(results: Path) -> None:
    from .profiling.results import load_folder, markdown_table

    print(markdown_table(load_folder(results)))


def _compare(first: Path, second: Path, tolerance: float, json: bool) -> None:
    from dataclasses import asdict

    from .cli.profile_tables import print_changes
    from .errors import CheckFailed
    from .profiling.changes import compare_profiles
    from .profiling.results import load_results

    changes = compare_profiles(load_results(first), load_results(second), tolerance)
    if json:
        emit_json([asdict(change) | {"ratio": change.ratio} for change in changes])
    else:
        print_changes(changes)
    worse = [f"{c.title}: {c.what} {c.ratio - 1:+.1%}" for c in changes if c.regression]
    if worse:
        raise CheckFailed(f"worse by more than {tolerance:.0%}: {'; '.join(worse)}")


if __name__ == "__main__":
    main()
