"""Say what can be exported and run here: `python -m sepvit_edge.doctor`."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from .cli.console import command, emit_json, print_columns, print_table
from .machine import cpu_features, cpu_name, usable_cores


@dataclass(frozen=True)
class TargetHealth:
    """What one target's runtime is like here.

    Attributes
    ----------
    target : str
        Its name for ``--target``.
    runtime, installed, supported : str
        Distribution, its version here (empty if missing), the range that works.
    exports : bool
        Whether packages can be made.
    runs : str
        ``"yes"``, ``"no"``, or how packages are checked instead.
    advice : str
        What to do about it; empty if nothing.
    """

    target: str
    runtime: str
    installed: str
    supported: str
    exports: bool
    runs: str
    advice: str


def target_health() -> list[TargetHealth]:
    """Look at every target's runtime; without loading it, but for NPUs."""
    from .backends.registry import RUNTIMES, get_backend
    from .backends.versions import check_runtime
    from .errors import SepViTError
    from .package.verification import LEVELS

    found = []
    for target, runtime in RUNTIMES.items():
        try:
            installed = version(runtime.distribution)
        except PackageNotFoundError:
            toolkit = runtime.toolkit
            installed = toolkit.version if toolkit is not None and toolkit.ready else ""
        advice = ""
        try:
            check_runtime(runtime)
        except SepViTError as error:
            advice = str(error)
        good = not advice
        runs = "yes" if good else "no"
        if good and target == "coreml" and platform.system() != "Darwin":
            runs = "evaluated op by op"  # Core ML itself is part of Apple's systems
        if good and runtime.npu:
            try:
                runs = LEVELS[get_backend(target).verification()].summary
            except SepViTError as error:  # a part of its tool chain is missing
                good, advice, runs = False, str(error), "no"
        supported = f"{runtime.minimum} to below {runtime.below}"
        found.append(
            TargetHealth(target, runtime.distribution, installed, supported, good, runs, advice)
        )
    return found


@command
def main(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say which targets can be exported and run here, and what the CPU has for them."""
    targets, features = target_health(), cpu_features()
    system = {
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "torch": _version("torch"),
        "CPU": cpu_name() or platform.machine(),
        "cores": str(len(usable_cores())),
    }
    if json:
        emit_json({"system": system, "cpu": features, "targets": [asdict(t) for t in targets]})
        return
    shown = ", ".join(name for name, has in features.items() if has) or "not listed by the system"
    missing = ", ".join(name for name, has in features.items() if not has)
    rows = [*system.items(), ("features", shown)]
    print_table("this machine", rows + ([("missing", missing)] if missing else []))
    header = ["target", "runtime", "installed", "supported", "exports", "runs here"]
    print_columns(
        header,
        [
            [
                t.target,
                t.runtime,
                t.installed or "-",
                t.supported,
                "yes" if t.exports else "no",
                t.runs,
            ]
            for t in targets
        ],
    )
    for target in targets:
        if target.advice:
            print_table(f"{target.target}: what to do", [("", ""), ("advice", target.advice)])


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
