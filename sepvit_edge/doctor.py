"""Say what can be exported and run here: `python -m sepvit_edge.doctor`."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from .cli.console import command, emit_json, print_columns, print_table

# The CPU's own name of a feature, and what it is called everywhere else.
_X86 = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI (int8)",
    "avx512_vnni": "AVX512-VNNI (int8)",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
}
_ARM = {
    "asimdhp": "FP16",
    "asimddp": "dot product (int8)",
    "i8mm": "i8mm (int8)",
    "bf16": "BF16",
    "sve": "SVE",
    "atomics": "LSE atomics",
}


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


def cpu_name() -> str:
    """Return the CPU's model name, as far as the system tells."""
    info = _cpuinfo()
    return info.get("model name") or platform.processor() or platform.machine()


def cpu_features() -> dict[str, bool]:
    """Features that decide how fast int8 and half precision are, and whether this CPU has them.

    Empty where the system does not list them.
    """
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    names = _ARM if platform.machine().lower() in ("aarch64", "arm64") else _X86
    return {name: flag in flags for flag, name in names.items()} if flags else {}


def _cpuinfo() -> dict[str, str]:
    """Return /proc/cpuinfo's first processor; empty on systems without it."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


@command
def main(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say which targets can be exported and run here, and what the CPU has for them."""
    from .profiling.latency import available_threads

    targets, features = target_health(), cpu_features()
    system = {
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "torch": _version("torch"),
        "CPU": cpu_name(),
        "cores": str(available_threads()),
    }
    if json:
        emit_json({"system": system, "cpu": features, "targets": [asdict(t) for t in targets]})
        return
    shown = ", ".join(name for name, has in features.items() if has) or "not listed by the system"
    missing = ", ".join(name for name, has in features.items() if not has)
    rows = [*system.items(), ("has", shown)]
    print_table("this machine", rows + ([("has not", missing)] if missing else []))
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
