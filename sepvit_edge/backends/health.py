"""State of each target's runtime on this system."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ..errors import SepViTError
from ..package.verification import LEVELS
from .registry import RUNTIMES, Runtime, get_backend
from .versions import check_runtime


@dataclass(frozen=True)
class TargetHealth:
    """State of one target's runtime on this system.

    Attributes
    ----------
    target : str
        Its name for ``--target``.
    runtime, installed, supported : str
        Distribution, its installed version (empty if missing), the supported range.
    exports : bool
        Whether packages can be exported.
    runs : str
        ``"yes"``, ``"no"``, or how packages are checked instead.
    advice : str
        Remedy of a fault; empty if there is none.
    """

    target: str
    runtime: str
    installed: str
    supported: str
    exports: bool
    runs: str
    advice: str


def target_health() -> list[TargetHealth]:
    """Examine every target's runtime; only those for NPUs are loaded."""
    return [_health(target, runtime) for target, runtime in RUNTIMES.items()]


def _health(target: str, runtime: Runtime) -> TargetHealth:
    runs, advice = "yes", ""
    try:
        check_runtime(runtime)
        if runtime.npu:
            runs = LEVELS[get_backend(target).verification()].summary
        elif target == "coreml" and platform.system() != "Darwin":
            runs = "evaluated op by op"  # Core ML itself is part of Apple's systems
    except SepViTError as error:  # of the runtime, or of a part of its toolchain
        runs, advice = "no", str(error)
    return TargetHealth(
        target,
        runtime.distribution,
        _installed(runtime),
        f"{runtime.minimum} to below {runtime.below}",
        exports=not advice,
        runs=runs,
        advice=advice,
    )


def _installed(runtime: Runtime) -> str:
    try:
        return version(runtime.distribution)
    except PackageNotFoundError:
        toolkit = runtime.toolkit
        return toolkit.version if toolkit is not None and toolkit.ready else ""
