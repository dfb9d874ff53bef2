"""The search for a package that fits a device: build, measure, keep, compare."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from ..backends.registry import MissingRuntime, get_backend
from ..errors import SepViTError
from ..package.folder import Package
from ..package.manifest import Manifest
from .devices import Device
from .document import Profile
from .measuring import Plan, measure_packages
from .results import load, save

_UNITS = {"p50": "ms", "p90": "ms", "size": "MB", "peak": "MB"}
_PLOT_WIDTH, _PLOT_HEIGHT = 60, 14


@dataclass(frozen=True)
class Candidate:
    """One package, measured with one number of threads.

    Attributes
    ----------
    title : str
        For people.
    package : str
        Its folder.
    threads : int or None
        Of the runtime.
    top1 : float or None
        Accuracy on the data, 0..1; None without labels.
    agreement : float
        Share of images on which it agrees with the reference, 0..1.
    p50_ms, p90_ms, model_mb, peak_mb : float
        As measured on the device.
    """

    title: str
    package: str
    threads: int | None
    top1: float | None
    agreement: float
    p50_ms: float
    p90_ms: float
    model_mb: float
    peak_mb: float | None

    @property
    def accuracy(self) -> float:
        """Top-1, or agreement with the reference where there are no labels."""
        return self.agreement if self.top1 is None else self.top1


def parse_budget(text: str) -> dict[str, float]:
    """Read ``"p90<20ms, size<10MB"``.

    Raises
    ------
    SepViTError
        If a piece is not understood.
    """
    limits = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(\w+)\s*<=?\s*(\d+(?:\.\d+)?)\s*(ms|MB)?", piece)
        if match is None or match[1] not in _UNITS or match[3] not in (None, _UNITS[match[1]]):
            known = ", ".join(f"{name}<...{unit}" for name, unit in _UNITS.items())
            raise SepViTError(f"the budget {piece!r} is not understood; there are {known}")
        limits[match[1]] = float(match[2])
    return limits


def fits(candidate: Candidate, limits: dict[str, float]) -> bool:
    """Whether a candidate keeps to all limits; what was not measured does not."""
    measured = {
        "p50": candidate.p50_ms,
        "p90": candidate.p90_ms,
        "size": candidate.model_mb,
        "peak": candidate.peak_mb,
    }
    return all(
        (value := measured[name]) is not None and value < limit for name, limit in limits.items()
    )


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that no other one beats in both latency and accuracy, fastest first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.p90_ms, -c.accuracy)):
        if not front or candidate.accuracy > front[-1].accuracy:
            front.append(candidate)
    return front


def pick(candidates: Sequence[Candidate], limits: dict[str, float]) -> Candidate | None:
    """Choose the most accurate that fits; of equals the faster, then the smaller."""
    fitting = [candidate for candidate in candidates if fits(candidate, limits)]
    return max(fitting, key=lambda c: (c.accuracy, -c.p90_ms, -c.model_mb), default=None)


@dataclass
class Search:
    """All combinations, and a folder in which finished ones are kept.

    Attributes
    ----------
    name, device
        Of profiles/.
    folder : Path
        Packages and results.
    weights : list of str
        Checkpoints; an empty name is the built-in one.
    image_sizes : list of int or None
        None is the checkpoint's own.
    targets, precisions : list of str
        No precision: all that a target has.
    threads : list of int or None
        A measurement each.
    data, images
        What accuracy is measured on.
    bootstrap : bool
        Install runtimes on the device.
    skipped : list of str
        What could not be built, and why.
    """

    name: str
    device: Device
    folder: Path
    weights: list[str]
    image_sizes: Sequence[int | None]
    targets: list[str]
    precisions: list[str]
    threads: Sequence[int | None]
    data: str = ""
    images: int | None = None
    bootstrap: bool = False
    skipped: list[str] = field(default_factory=list)

    def run(self, step: Callable[[str], None]) -> list[Candidate]:
        """Build and measure what is not there yet.

        Raises
        ------
        SepViTError
            If nothing at all could be measured.
        """
        found = []
        for weights, size in product(self.weights, self.image_sizes):
            for target, precision in self._recipes():
                try:
                    package = self._package(weights, size, target, precision, step)
                except MissingRuntime as error:
                    self.skipped.append(str(error))
                    continue
                for threads in self.threads:
                    found.append(_candidate(package, self._profile(package, threads, step)))
        if not found:
            raise SepViTError("nothing could be measured: " + "; ".join(set(self.skipped)))
        return found

    def _recipes(self) -> Sequence[tuple[str, str]]:
        from ..config.recipe import load_recipe, recipes, targets

        for target in self.targets:
            if target not in targets():
                raise SepViTError(f"there is no target {target}; there are {', '.join(targets())}")
        known = [
            (recipe.target, recipe.precision)
            for name, path in recipes().items()
            if name == f"{(recipe := load_recipe(path)).target}-{recipe.precision}"
        ]
        wanted = [
            (target, precision)
            for target, precision in known
            if target in self.targets and (not self.precisions or precision in self.precisions)
        ]
        if not wanted:
            raise SepViTError(
                f"no recipe of {', '.join(self.targets)} has {', '.join(self.precisions)}"
            )
        return wanted

    def _package(
        self,
        weights: str,
        size: int | None,
        target: str,
        precision: str,
        step: Callable[[str], None],
    ) -> Package:
        """Export a package, unless the folder has it complete; exports move in place when done."""
        from ..checkpoints.choose import choose_model
        from ..config.recipe import find_recipe
        from ..data.choose import open_dataset
        from ..pipeline.export import export_package

        stem = Path(weights).stem or "builtin"
        path = self.folder / "packages" / f"{stem}-{size or 'own'}-{target}-{precision}"
        if path.exists():
            package = Package(path)
            if _as_wanted(package.manifest, self.data, self.images):
                return package
        get_backend(target)
        step(f"building {path.name}")
        model = choose_model(weights, "", "", size)
        return export_package(
            model,
            output=path,
            recipe=find_recipe(target, precision),
            data=open_dataset(self.data, model.config.labels) if self.data else None,
            images=self.images,
            force=True,
            step=lambda text: step(f"{path.name}: {text}"),
        )

    def _profile(
        self, package: Package, threads: int | None, step: Callable[[str], None]
    ) -> Profile:
        """Measure, unless a finished measurement of the same bytes is kept."""
        results = self.folder / "results"
        for path in sorted(results.glob(f"{self.name}_*_{threads or 'default'}t_*.json")):
            (kept,) = load(path)
            if kept.complete and kept.package.digest == package.manifest.digest:
                return kept
        plan = Plan(threads=(threads,), operations=False, bootstrap=self.bootstrap)
        (profile,) = measure_packages([package], self.name, self.device, plan, step)
        if not profile.complete:
            raise SepViTError(f"{package.path.name}: {profile.incomplete_reason}")
        save(profile, results)
        return profile

    def plot(
        self, found: Sequence[Candidate], front: Sequence[Candidate], chosen: Candidate | None
    ) -> str:
        """Accuracy over latency as text: ``.`` a candidate, ``o`` on the front, ``@`` the pick."""
        times = [c.p90_ms for c in found]
        marks = [c.accuracy for c in found]
        rows = [[" "] * _PLOT_WIDTH for _ in range(_PLOT_HEIGHT)]
        for candidate in [*found, *front, *([chosen] if chosen else [])]:
            x = _scaled(candidate.p90_ms, times, _PLOT_WIDTH)
            y = _PLOT_HEIGHT - 1 - _scaled(candidate.accuracy, marks, _PLOT_HEIGHT)
            rows[y][x] = "@" if candidate is chosen else "o" if candidate in front else "."
        lines = ["".join(row).rstrip() for row in rows]
        lines[0] = f"{max(marks):7.2%} |{lines[0]}"
        lines[-1] = f"{min(marks):7.2%} |{lines[-1]}"
        lines[1:-1] = [f"{'':7} |{line}" for line in lines[1:-1]]
        ends = f"{min(times):.1f} ms".ljust(_PLOT_WIDTH - 10) + f"{max(times):.1f} ms".rjust(10)
        return "\n".join([*lines, f"{'':8}+{'-' * _PLOT_WIDTH}", f"{'p90':8} {ends}"])


def _scaled(value: float, values: Sequence[float], cells: int) -> int:
    low, high = min(values), max(values)
    return round((value - low) / (high - low) * (cells - 1)) if high > low else 0


def _as_wanted(manifest: Manifest, data: str, images: int | None) -> bool:
    """Whether a kept package's parity was measured on what is asked for now."""
    parity = manifest.parity
    if parity is None or (images is not None and parity.images > images):
        return False
    return not data or Path(data).name == parity.data.split("/")[0]


def _candidate(package: Package, profile: Profile) -> Candidate:
    parity, latency = package.manifest.parity, profile.latency
    assert parity is not None and latency is not None
    threads = profile.runtime.threads
    title = f"{package.path.name}, {threads or 'default'} thread{'s' * (threads != 1)}"
    return Candidate(
        title=title,
        package=str(package.path),
        threads=threads,
        top1=parity.top1_package,
        agreement=parity.top1_agreement,
        p50_ms=latency.p50_ms,
        p90_ms=latency.p90_ms,
        model_mb=profile.package.model_mb,
        peak_mb=profile.memory.peak_mb if profile.memory else None,
    )
