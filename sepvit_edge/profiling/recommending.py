"""The search for a package that fits a device: build, measure, keep, compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from ..backends.registry import MissingRuntime, get_backend
from ..config.recipe import Recipe, recipes_for, targets
from ..errors import SepViTError, unknown_name
from ..machine import present_features
from ..package.folder import Package
from ..package.manifest import Manifest
from .candidates import Candidate
from .devices import DeviceFile
from .document import Profile
from .judge import judged
from .measuring import Request, measure_packages
from .results import load_results, save_result


@dataclass
class Search:
    """A search over all combinations; finished ones are kept in a folder.

    Attributes
    ----------
    name, device
        Name and content of the device's file in profiles/.
    folder : Path
        Folder of packages and results.
    weights : list of str
        Checkpoints; an empty name is the built-in one.
    image_sizes : list of int or None
        Sides in pixels; None is the checkpoint's own.
    targets, precisions : list of str
        Runtimes and precisions; without precisions all that a target has.
    threads : list of int or None
        Numbers of threads, a measurement each.
    data, classes, images
        Images to measure accuracy on, the file with the labels of their folders, if any, and their
        maximum number.
    bootstrap : bool
        Whether to install runtimes on the device.
    skipped : list of str
        Combinations that could not be built, with the reasons.
    """

    name: str
    device: DeviceFile
    folder: Path
    weights: list[str]
    image_sizes: Sequence[int | None]
    targets: list[str]
    precisions: list[str]
    threads: Sequence[int | None]
    data: str = ""
    classes: str = ""
    images: int | None = None
    bootstrap: bool = False
    skipped: list[str] = field(default_factory=list)

    def run(self, step: Callable[[str], None]) -> list[Candidate]:
        """Build and measure the combinations that are not in the folder yet.

        Raises
        ------
        SepViTError
            If the device is emulated, or nothing at all could be measured.
        """
        if self.device.emulated:
            raise SepViTError("times of an emulated device mean nothing; choose a real one")
        found = []
        for weights, size in product(self.weights, self.image_sizes):
            for name, recipe in self._recipes().items():
                try:
                    package = self._package(weights, size, name, recipe, step)
                except MissingRuntime as error:
                    self.skipped.append(str(error))
                    continue
                profiles = [self._profile(package, threads, step) for threads in self.threads]
                found += [_candidate(package, profile) for profile in judged(profiles)]
        if not found:
            raise SepViTError("nothing could be measured: " + "; ".join(set(self.skipped)))
        return found

    def _recipes(self) -> dict[str, Recipe]:
        for target in self.targets:
            if target not in targets():
                raise unknown_name("target", target, targets())
        wanted = {
            name: recipe
            for name, recipe in recipes_for(self._features()).items()
            if recipe.target in self.targets
            and (not self.precisions or recipe.precision in self.precisions)
        }
        if not wanted:
            raise SepViTError(
                f"no recipe of {', '.join(self.targets)} has {', '.join(self.precisions)}"
            )
        return wanted

    def _features(self) -> list[str]:
        """Return the features of the device's CPU."""
        if self.device.connection.kind != "local":
            return self.device.hardware.features
        return present_features()

    def _package(
        self,
        weights: str,
        size: int | None,
        name: str,
        recipe: Recipe,
        step: Callable[[str], None],
    ) -> Package:
        """Export a package, unless the folder has it; exports move in place when complete."""
        from ..checkpoints.choose import choose_model
        from ..data.choose import open_dataset
        from ..pipeline.export import export_package

        stem = Path(weights).stem or "builtin"
        path = self.folder / "packages" / f"{stem}-{size or 'own'}-{name}"
        if path.exists() and not self.classes:
            package = Package(path)
            if _as_wanted(package.manifest, self.data, self.images):
                return package
        get_backend(recipe.target)
        step(f"building {path.name}")
        model = choose_model(weights, "", "", size)
        data = None
        if self.data:
            data = open_dataset(self.data, model.config.labels, classes=self.classes)
        return export_package(
            model,
            output=path,
            recipe=recipe,
            data=data,
            images=self.images,
            force=True,
            step=lambda text: step(f"{path.name}: {text}"),
        )

    def _profile(
        self, package: Package, threads: int | None, step: Callable[[str], None]
    ) -> Profile:
        """Measure, unless the folder has a trustworthy measurement of the same bytes."""
        results = self.folder / "results"
        for path in sorted(results.glob(f"{self.name}_*_{threads or 'default'}t_*.json")):
            (kept,) = load_results(path)
            trusted = kept.trust is None or kept.trust.trustworthy
            if kept.complete and trusted and kept.package.digest == package.manifest.digest:
                return kept
        request = Request(threads=(threads,), operations=False, bootstrap=self.bootstrap)
        (profile,) = measure_packages([package], self.name, self.device, request, step)
        if not profile.complete:
            raise SepViTError(f"{package.path.name}: {profile.incomplete_reason}")
        save_result(profile, results)
        return profile


def _as_wanted(manifest: Manifest, data: str, images: int | None) -> bool:
    """Whether a kept package's parity was measured on the requested images."""
    parity = manifest.parity
    if (
        parity is None
        or parity.selection is None
        or (images is not None and parity.images > images)
    ):
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
        doubts=tuple(doubt.sentence for doubt in profile.trust.doubts) if profile.trust else (),
    )
