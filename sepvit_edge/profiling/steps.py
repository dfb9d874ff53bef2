"""Packages of several graphs, timed image by image on this machine.

The rules between their graphs need more than the runner has, so it runs in this process here.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..backends.registry import RUNTIMES
from ..backends.versions import check_runtime
from ..data.fit import Fit
from ..errors import SepViTError
from ..model.dense.config import BOX_HEAD, MASK_HEAD
from ..package.folder import Package
from ..package.session import PackageSession
from ..pipeline.answers import Answer, finished, fitted
from .connections.interface import Step as Progress
from .devices import DeviceFile
from .document import Profile, read_profile
from .runner.command import parse
from .runner.errors import Refusal
from .runner.golden import check_golden
from .runner.measurement import Measurement
from .runner.output import Output

_IMAGE = "image.0"  # of the golden vectors
_FIRST = "first stage"
# What the process of a command cannot tell.
_UNTOLD = {
    "memory": "a package of several graphs is timed in the process of this command",
    "cold_start": "a package of several graphs is timed in the process of this command",
    "operations": "the steps of an image are timed instead",
}


class ImageMeasurement(Measurement):
    """The measurement of an image through all graphs, in this process.

    Parameters
    ----------
    package : Package
        A package with `graphs`.
    options : argparse.Namespace
        As for the runner.
    output : Output
        Where progress and document go.
    """

    tasks = ("instance-segmentation",)

    def __init__(self, package: Package, options: argparse.Namespace, output: Output) -> None:
        super().__init__(options, output)
        self.session = PackageSession(package, options.threads)
        self.vectors = package.golden()
        self.laps: list[dict[str, float]] = []
        self.counts: Counter[str] = Counter()
        for what, reason in _UNTOLD.items():
            self.missing.note(what, reason)

    def run_golden(self) -> dict:
        """Check the outputs of the first stage."""
        return check_golden(self.manifest, self.vectors, lambda x: self.session.run_input(x[0]))

    def time_cold_starts(self) -> None:
        """Leave them out."""

    def load(self) -> None:
        """Take an image of the golden vectors; the package is loaded."""
        runtime = RUNTIMES[self.session.package.manifest.target]
        self.document["runtime"].update(version=check_runtime(runtime))
        self.arrays = [*fitted(self.session.package, self.vectors[_IMAGE])]
        self.call = self._answer

    def time_calls(self) -> None:
        """Time images, and the steps of each."""
        self.laps.clear()
        super().time_calls()
        self.document["steps"] = self._steps()

    def read_memory(self) -> None:
        """Leave it out."""

    def watch_memory(self) -> None:
        """Leave it out."""

    def measure_roofs(self) -> None:
        """Leave them out, as there is no part to compare with them."""
        self.missing.note("roofs", _UNTOLD["operations"])

    def _answer(self, arrays: Sequence) -> Answer:
        """Run one image, and keep the seconds of each step."""
        pixels, fit = arrays
        assert isinstance(fit, Fit)
        facts, laps = self.session.package.manifest, {}
        assert facts.postprocessing is not None and facts.model.input_size is not None
        before = time.perf_counter()

        def ended(step: str) -> None:
            nonlocal before
            now = time.perf_counter()
            laps[step], before = now - before, now

        def heads(name: str, regions: np.ndarray) -> list[np.ndarray]:
            self.counts[name] = len(regions)
            return self.session.run_graph(name, regions)

        outputs = [output[0] for output in self.session.run_pixels(pixels)]
        ended(_FIRST)
        answer = finished(outputs, facts.postprocessing, facts.model.input_size, fit, heads, ended)
        self.laps.append(laps)
        return answer

    def _steps(self) -> dict:
        """Return section ``steps`` of the document."""
        graphs = self.session.package.manifest.graphs or ()
        calls = {g.name: -(-self.counts[g.name] // g.input.shape[0]) for g in graphs}
        items = [
            {
                "name": name,
                "where": "graph" if name in (_FIRST, *calls) else "host",
                "calls": calls.get(name, 1),
                "p50_ms": float(np.median([laps[name] for laps in self.laps])) * 1e3,
            }
            for name in self.laps[0]
        ]
        seen = {"regions": self.counts[BOX_HEAD], "objects": self.counts[MASK_HEAD]}
        return {"image": _IMAGE, **seen, "items": items}


class _Collected(Output):
    """Progress goes to the command, and the document stays here."""

    def __init__(self, step: Progress) -> None:
        super().__init__(stream=False)
        self._step = step
        self.kept: dict = {}

    def progress(self, text: str) -> None:
        self._step(text)

    def document(self, document: dict, final: bool) -> None:
        self.kept = document


def check_machine(package: Package, name: str, device: DeviceFile, execution: str | None) -> None:
    """Refuse to time a package of several graphs elsewhere.

    Raises
    ------
    SepViTError
        If the device is another one, or an execution is chosen.
    """
    if device.connection.kind != "local" or device.emulated:
        raise SepViTError(
            f"{package.path} is for {package.manifest.task}, whose rules between graphs run on "
            f"this machine only, not on {name}; leave --device out"
        )
    if execution is not None:
        raise SepViTError(
            f"the graphs of {package.path} are timed on the CPU; leave --execution out"
        )


def measure_images(package: Package, arguments: Sequence[str], step: Progress) -> Profile:
    """Measure an image through a package of several graphs.

    Parameters
    ----------
    package : Package
        The package.
    arguments : sequence of str
        Options of the runner.
    step : callable
        Called with the name of each step, for a progress display.

    Raises
    ------
    SepViTError
        If it cannot be measured.
    """
    output = _Collected(step)
    try:
        ImageMeasurement(package, parse([str(package.path), *arguments]), output).run()
    except Refusal as refusal:
        raise SepViTError(str(refusal)) from None
    return read_profile(output.kept, "this machine")
