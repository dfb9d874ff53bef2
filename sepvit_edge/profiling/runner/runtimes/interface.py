"""What each runtime offers to the runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

# Takes a list of arrays and returns a list of arrays.
Call = Callable[[Any], Any]

WARMUP_RUNS = 5  # before operations are timed
# Stated in the document until somebody has measured such a device.
UNTRIED = "written from the runtime's documentation; no device of this kind has been measured yet"


class Runtime:
    """A runtime with the settings that the package's backend uses.

    Parameters
    ----------
    manifest : dict
        The package's manifest.
    threads : int or None
        Threads of the runtime; None leaves the number to it.
    execution : str or None
        Execution provider or device; None for the usual one.

    Attributes
    ----------
    model : str
        The package's file that this runtime loads.
    execution : str
        What computes, for the document.
    config : dict
        Settings, for the document.
    version : str
        Version of the installed library.
    caveats : tuple of (str, str)
        What its figures do not tell, each with the reason.
    emulated : bool
        Whether the runtime emulates its device, so that times mean nothing.
    """

    model: str
    execution: str
    config: dict
    version = "unknown"
    caveats: tuple = ()
    emulated = False

    def __init__(self, manifest: dict, threads: int | None, execution: str | None) -> None:
        raise NotImplementedError

    def load(self, file: Path, keeps_output: bool = True) -> Call:
        """Make a program callable.

        Parameters
        ----------
        file : Path
            The program.
        keeps_output : bool
            If False, the next call may overwrite what a call returned.
        """
        raise NotImplementedError

    def operations(self, file: Path, call: Call, arrays: list, runs: int) -> dict | None:
        """Time single operations; None where the runtime has no profiler.

        Parameters
        ----------
        file : Path
            The program.
        call : callable
            The same program without a profiler, which is timed in turn with the profiled one.
        arrays : list of array
            Its inputs.
        runs : int
            Profiled runs.

        Returns
        -------
        dict or None
            Section ``operations`` of the document.
        """
        return None


def operations(
    method: str, runs: int, whole_s: float, items: dict, observed_s: float | None = None
) -> dict:
    """Put times of operations into the document's form.

    Parameters
    ----------
    method : str
        How they were measured.
    runs : int
        Number of runs.
    whole_s : float
        Seconds of all runs of the whole program without the profiler.
    items : dict
        Microseconds by (name, kind, kernel), summed over the runs.
    observed_s : float or None
        Seconds of all runs of the whole program under the profiler.
    """
    return {
        "method": method,
        "runs": runs,
        "whole_us": whole_s * 1e6 / runs,
        "observed_us": None if observed_s is None else observed_s * 1e6 / runs,
        "items": [
            {"name": name, "kind": kind, "kernel": kernel, "mean_us": total / runs}
            for (name, kind, kernel), total in items.items()
        ],
    }
