"""Installed versions of runtimes and tools, held against the supported range."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from packaging.version import InvalidVersion, Version

from ..errors import SepViTError
from .registry import Runtime


def check_runtime(runtime: Runtime) -> str:
    """Return the installed version of a runtime.

    Raises
    ------
    SepViTError
        If it is missing or outside the supported range.
    """
    if runtime.toolkit is not None and runtime.runs_in_toolkit:
        return runtime.toolkit.check()
    try:
        installed = version(runtime.distribution)
    except PackageNotFoundError:
        raise SepViTError(
            f"{runtime.distribution} is not installed; run: pip install '{runtime.requirement}'"
        ) from None
    check_range(runtime.distribution, installed, runtime.minimum, runtime.below)
    return installed


def check_range(name: str, installed: str, minimum: str, below: str) -> None:
    """Check that ``minimum <= installed < below``.

    Raises
    ------
    SepViTError
        If it does not hold, with pip's command; or if one of the three is not a version.
    """
    try:
        fits = Version(minimum) <= Version(installed) < Version(below)
    except InvalidVersion as error:
        raise SepViTError(f"the manifest has an invalid version: {error}") from None
    if not fits:
        raise SepViTError(
            f"{name} {installed} is installed, but {minimum} or later and older than {below} is "
            f"needed; run: pip install '{name}>={minimum},<{below}'"
        )


def versions_used(distributions: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of some distributions."""
    return {name: version(name) for name in distributions}
