"""Measure packages on a device: `python -m sepvit_edge.profile PACKAGE [--device NAME]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, emit_json, steps
from .cli.options import MOST_THREADS, RequireSignature

if TYPE_CHECKING:
    from .model.create import ReferenceModel
    from .package.folder import Package
    from .pipeline.taps import TapDistance
    from .profiling.budgets import BudgetLine
    from .profiling.connections.interface import Step
    from .profiling.devices import DeviceFile
    from .profiling.document import Profile
    from .profiling.measuring import Request


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
    by_block: Annotated[
        bool,
        typer.Option(
            "--by-block",
            help="Also compare the output of every part with the reference, on this machine; the "
            "report then shows error and time together.",
        ),
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            help="With --by-block: the packages' checkpoint; found by itself if built in."
        ),
    ] = "",
    calibration: Annotated[
        str,
        typer.Option(
            help="With --by-block: the images that the packages were calibrated on. "
            "Default: built-in ones."
        ),
    ] = "",
    explorer: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON",
            help="With --by-block: write the network for Google's Model Explorer, and beside it "
            "times and SQNR as node data.",
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option("--save", help="Keep the documents in --results, beside older ones."),
    ] = False,
    results: Annotated[Path, typer.Option(help="Folder of results.")] = Path("profiles/results"),
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Show what changed from result A to result B: files, or names in the folder of "
            "results. NAME is the latest, NAME@2026-11-20 the latest of that day or before.",
        ),
    ] = None,
    ab: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--ab", metavar="A B", help="Time two packages in turn, and print how B compares to A."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Per cent that may become worse in a comparison.")
    ] = 5,
    table: Annotated[
        bool, typer.Option("--table", help="Print the kept results as a table in Markdown.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the times are not trustworthy.")
    ] = False,
    require_signature: RequireSignature = None,
    json: Annotated[bool, typer.Option("--json", help="Print the documents as JSON.")] = False,
) -> None:
    """Measure packages on a device: latency, memory, start, heat, and where the time goes.

    The package's golden vectors are checked on the device first; a package with other logits there
    is not timed. Exit status 1 means: golden vectors differ, a budget is broken, a comparison found
    a regression, the device went away in the middle, or, with --strict, times are not trustworthy:
    the machine was busy, was slowed down, or the times drift.
    """
    from .cli.by_block_table import print_by_block
    from .cli.numbers import seconds_of, whole_numbers
    from .cli.profile_tables import print_profiles
    from .errors import CheckFailed, SepViTError
    from .package.folder import Package
    from .profiling.budgets import check_budgets, faults
    from .profiling.devices import load_device
    from .profiling.measuring import Request, obtain_profiles

    if table:
        if packages or app_file or report or trace or save or by_block:
            raise SepViTError(
                "--table prints the results that were kept and measures nothing; leave packages, "
                "--app-file, --report, --trace, --save and --by-block out"
            )
        return _print_table(results, json)
    if compare is not None:
        return _compare(*compare, results, tolerance / 100, strict, json)
    name, facts = load_device(device)
    request = Request(
        threads=whole_numbers(threads, "--threads", "1,2,4", MOST_THREADS) or None,
        cores=cores or None,
        execution=execution or None,
        max_start_temp_c=max_start_temp,
        sustained_s=seconds_of(sustained),
        operations=operations,
        repeat=repeat,
        bootstrap=bootstrap,
        binary=binary,
    )
    if ab is not None:
        if packages or app_file or report or trace or save or sustained or by_block:
            raise SepViTError(
                "--ab times its two packages and nothing else; leave packages, --app-file, "
                "--report, --trace, --save, --sustained and --by-block out"
            )
        both = Package(ab[0], require_signature), Package(ab[1], require_signature)
        return _time_in_turn(*both, name, facts, request, strict, json)
    if save and facts.emulated:
        raise SepViTError("times of an emulated device are not kept; leave --save out")
    outputs = _Outputs(results, save, report, trace, explorer)
    outputs.check()
    compared = _references(packages or [], weights, calibration, by_block, explorer)
    with steps() as step:
        # First, since it may be refused, and a measurement is not to be lost.
        distances = _distances(compared, calibration, step)
        profiles = obtain_profiles(
            packages or [],
            name,
            facts,
            request,
            step,
            app_file=app_file,
            etdump=etdump,
            trust=require_signature,
        )
    budgets = check_budgets(profiles, facts.budgets)
    outputs.write(profiles, budgets, facts, compared, distances)
    if json:
        emit_json([profile.model_dump(mode="json") for profile in profiles])
    else:
        print_profiles(profiles, budgets, facts)
        if compared:
            print_by_block({p.path.name: distances[p.manifest.digest] for p, _ in compared})
    if found := faults(profiles, budgets, strict):
        raise CheckFailed("; ".join(found))


def _references(
    packages: Sequence[Path],
    weights: str,
    calibration: str,
    by_block: bool,
    explorer: Path | None,
) -> list[tuple[Package, ReferenceModel]]:
    """Load what --by-block compares packages with, before anything is measured."""
    from .errors import SepViTError

    if not by_block:
        given = {"--weights": weights, "--calibration": calibration, "--explorer": explorer}
        for option, value in given.items():
            if value:
                raise SepViTError(f"{option} is for --by-block; give --by-block too")
        return []
    if not packages:
        raise SepViTError("--by-block needs the packages themselves; name them")
    from .cli.names import check_names
    from .package.folder import Package
    from .pipeline.verify import reference_of

    check_names(weights=[weights] if weights else [], data=[calibration])
    opened = [Package(path) for path in packages]
    return [(package, reference_of(package, weights or None)) for package in opened]


def _distances(
    compared: Sequence[tuple[Package, ReferenceModel]], calibration: str, step: Step
) -> dict[str, list[TapDistance]]:
    """Return every part's distance to the reference, by the digest of the package."""
    if not compared:
        return {}
    from .data.choose import open_dataset
    from .pipeline.by_block import distances

    images = open_dataset(calibration, None, "calibration") if calibration else None
    found = {}
    for package, model in compared:
        step(f"comparing {package.path.name} by block")
        pixels = package.golden()["pixels"][:1]
        found[package.manifest.digest] = distances(package, model, pixels, images)
    return found


@dataclass(frozen=True)
class _Outputs:
    """What is written beside the table: documents, a report, a trace, a graph."""

    results: Path
    save: bool
    report: Path | None
    trace: Path | None
    explorer: Path | None

    def check(self) -> None:
        """Refuse places that cannot be written, before anything is measured."""
        from .files import check_output_file
        from .profiling.results import check_folder

        if self.save:
            check_folder(self.results)
        if self.report is not None:
            check_output_file(self.report, "--report", ".html")
        if self.trace is not None:
            check_output_file(self.trace, "--trace", ".json")
        if self.explorer is not None:
            from .profiling.explorer import node_data_files

            for path in (self.explorer, *node_data_files(self.explorer)):
                check_output_file(path, "--explorer", ".json")

    def write(
        self,
        profiles: Sequence[Profile],
        budgets: Sequence[BudgetLine],
        device: DeviceFile,
        compared: Sequence[tuple[Package, ReferenceModel]],
        by_block: Mapping[str, Sequence[TapDistance]],
    ) -> None:
        """Write what was asked for; the results first, which nothing can bring back."""
        from .profiling.results import history, save_result

        older = {}
        if self.report is not None:
            older = {profile.title: history(profile, self.results) for profile in profiles}
        if self.save:
            for profile in profiles:
                save_result(profile, self.results)
        if self.report is not None:
            from .profiling.report import write_report

            line = _command_line()
            write_report(profiles, budgets, device, line, self.report, older, by_block)
        if self.trace is not None:
            from .profiling.trace import write_trace

            write_trace(profiles, self.trace)
        if self.explorer is not None:
            from .profiling.attribution import program_of
            from .profiling.explorer import write_graphs

            programs = {p.manifest.digest: program_of(p.manifest) for p, _ in compared}
            write_graphs(profiles, programs, by_block, self.explorer)


def _command_line() -> str:
    """Return the command as it was given."""
    import shlex
    import sys

    given = sys.argv[1:]
    return shlex.join(["sepvit-edge", *([] if given[:1] == ["profile"] else ["profile"]), *given])


def _print_table(results: Path, json: bool) -> None:
    from .profiling.results import load_folder, markdown_table

    kept = load_folder(results)
    if json:
        emit_json([profile.model_dump(mode="json") for profile in kept])
    else:
        print(markdown_table(kept))


def _time_in_turn(
    first: Package,
    second: Package,
    name: str,
    device: DeviceFile,
    request: Request,
    strict: bool,
    json: bool,
) -> None:
    from dataclasses import asdict

    from .cli.profile_tables import print_versus
    from .errors import CheckFailed
    from .profiling.measuring import measure_pairs, now
    from .profiling.pairs import versus

    with steps() as step:
        pairs = measure_pairs(first, second, name, device, request, step)
    found = versus(pairs, str(first.path), str(second.path))
    if json:
        told = {"verdict": found.verdict, "pairs_ms": pairs.pairs_ms}
        emit_json(asdict(found) | {"date": f"{now():%Y-%m-%dT%H:%M:%SZ}"} | told)
    else:
        print_versus(found)
    if strict and found.doubts:
        raise CheckFailed(f"not trustworthy, because {'; '.join(found.doubts)}")


def _compare(
    first: str, second: str, results: Path, tolerance: float, strict: bool, json: bool
) -> None:
    from dataclasses import asdict

    from .cli.profile_tables import print_changes
    from .errors import CheckFailed
    from .profiling.changes import compare_profiles
    from .profiling.results import find_results

    before, after = (find_results(reference, results) for reference in (first, second))
    changes = compare_profiles(before, after, tolerance)
    if json:
        told = ("ratio", "comparable", "regression", "verdict")
        emit_json([asdict(c) | {name: getattr(c, name) for name in told} for c in changes])
    else:
        print_changes(changes)
    worse = [f"{c.title}: {c.what} {c.ratio - 1:+.1%}" for c in changes if c.regression]
    if worse:
        raise CheckFailed(f"worse by more than {tolerance:.0%}: {'; '.join(worse)}")
    if strict and (doubted := {f"{c.title}: {d}" for c in changes for d in c.doubts}):
        raise CheckFailed(f"not trustworthy: {'; '.join(sorted(doubted))}")


if __name__ == "__main__":
    main()
