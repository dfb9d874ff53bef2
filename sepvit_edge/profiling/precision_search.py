"""The search for the layers to keep in float on a device: export, measure, choose, verify."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..config.recipe import Recipe, recipes_of
from ..data.sample import Dataset
from ..errors import CheckFailed, SepViTError
from ..model.logits import reference_logits
from ..model.reference import SepViT
from ..package.folder import Package
from ..package.session import PackageSession
from ..pipeline.export import export_package
from ..pipeline.lowering import quantization_for
from ..quantization.scheme import LayerQuantization
from ..quantization.sensitivity import layers_by_part, scan
from .devices import DeviceFile
from .document import Profile
from .judge import trust_of
from .measuring import Request, measure_packages
from .precision import (
    Choice,
    Loss,
    PartCost,
    first_within,
    front_of,
    images_needed,
    loss_of,
    part_costs,
)

Verdict = Literal["kept", "too few images to tell"]
# Noise needs few images; parity of packages that are only timed needs fewer.
_NOISE_IMAGES = 32
_PARITY_IMAGES = 8


@dataclass(frozen=True)
class PrecisionPlan:
    """The outcome of a search.

    Attributes
    ----------
    device : str
        Name of the device.
    threads : int or None
        Threads of the runtime there.
    images : int
        Number of images that accuracy was measured on.
    within : float
        Points of top-1 that may be lost.
    fp32_top1 : float
        Accuracy of the reference, 0..1.
    parts : list of PartCost
        In the order of the network.
    front : list of Choice
        From everything in int8 to one part in int8; `loss` where it was measured.
    chosen : Choice
        The fastest one within the budget.
    loss : Loss
        Of the exported package in its runtime; of torch's int8 where that does not run here.
    verdict : str
        ``"kept"`` if the whole interval of the loss is within the budget.
    images_needed : int or None
        Estimate of the images that would tell; None if it is kept.
    fp32_ms, int8_ms, chosen_ms : float
        p50 on the device.
    doubts : tuple of str
        Reasons for which a measurement's times are not trustworthy.
    recipe : Recipe
        To export it.
    """

    device: str
    threads: int | None
    images: int
    within: float
    fp32_top1: float
    parts: list[PartCost]
    front: list[Choice]
    chosen: Choice
    loss: Loss
    verdict: Verdict
    images_needed: int | None
    fp32_ms: float
    int8_ms: float
    chosen_ms: float
    doubts: tuple[str, ...]
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        parts = [{**asdict(part), "saved_ms": part.saved_ms} for part in self.parts]
        return {**asdict(self), "parts": parts, "recipe": self.recipe.model_dump(mode="json")}


@dataclass(frozen=True)
class PrecisionSearch:
    """What a search needs to know.

    Attributes
    ----------
    model : SepViT
        The reference.
    recipe : Recipe
        The target's int8 recipe.
    within : float
        Points of top-1 that may be lost.
    pixels : numpy.ndarray
        uint8 (N, image_size, image_size, 3), none of the calibration images.
    labels : numpy.ndarray
        Classes of the images (N,).
    calibration : Dataset or None
        Typical images. Default: built-in ones.
    name, device
        Name and content of the device's file in profiles/.
    request : Request
        How to measure; one number of threads.
    """

    model: SepViT
    recipe: Recipe
    within: float
    pixels: np.ndarray
    labels: np.ndarray
    calibration: Dataset | None
    name: str
    device: DeviceFile
    request: Request

    def run(
        self,
        step: Callable[[str], None] = lambda _: None,
    ) -> PrecisionPlan:
        """Measure, choose and verify.

        Raises
        ------
        SepViTError
            If the target has no float layers, or the device tells no times.
        CheckFailed
            If nothing in int8 keeps the budget, or saves time.
        """
        self._check()
        step("calibrating")
        int8 = quantization_for(self.model, self.recipe, self.calibration)
        assert isinstance(int8, LayerQuantization)
        with tempfile.TemporaryDirectory() as scratch:
            recipes = recipes_of(self.recipe.target)
            packages = [
                self._export(Path(scratch) / title, recipe, step)
                for title, recipe in (
                    ("fp32", next(iter(recipes.values()))),
                    ("int8", self.recipe),
                )
            ]
            profiles = self._measure(packages, self.request, step)
        few = len(self.pixels) // _NOISE_IMAGES or 1
        parts_done = count(1)
        noise = scan(
            self.model,
            int8.stored,
            self.pixels[::few][:_NOISE_IMAGES],
            lambda _: step(f"measuring the noise of each part: {next(parts_done)} done"),
        )
        step("running the reference")
        reference = reference_logits(self.model, self.pixels)
        parts, fp32_ms, int8_ms = part_costs(noise, *profiles)
        front, first = front_of(parts, int8_ms)

        def measure(choice: Choice) -> Choice:
            kept = len(choice.keep_float)
            step(f"measuring accuracy with {kept} of {len(parts)} parts in float")
            logits = self._run_in_torch(int8, choice)
            return replace(choice, loss=loss_of(reference, logits, self.labels))

        index = first_within(front, first, self.within, measure)
        chosen = front[index]
        recipe = self._recipe(chosen)
        loss, profile = self._verify(recipe, chosen, reference, step)
        assert profile.latency is not None
        chosen_ms = profile.latency.p50_ms
        if chosen_ms >= fp32_ms:
            raise CheckFailed(
                f"what keeps the budget takes {chosen_ms:.2f} ms on {self.name}, and fp32 "
                f"{fp32_ms:.2f} ms: int8 saves nothing there; export with --precision fp32"
            )
        kept = loss.interval[1] <= self.within
        return PrecisionPlan(
            device=self.name,
            threads=profiles[0].runtime.threads,
            images=len(self.pixels),
            within=self.within,
            fp32_top1=float((reference.argmax(1) == self.labels).mean()),
            parts=parts,
            front=front,
            chosen=chosen,
            loss=loss,
            verdict="kept" if kept else "too few images to tell",
            images_needed=None if kept else images_needed(loss, len(self.pixels), self.within),
            fp32_ms=fp32_ms,
            int8_ms=int8_ms,
            chosen_ms=chosen_ms,
            doubts=_doubts([*profiles, profile]),
            recipe=recipe,
        )

    def _check(self) -> None:
        if self.recipe.quantization.scheme == "full":
            raise SepViTError(
                f"{self.recipe.target} computes everything in integers, so that no part can stay "
                "in float; choose another --target"
            )
        if self.device.emulated:
            raise SepViTError("times of an emulated device mean nothing; choose a real one")

    def _export(self, folder: Path, recipe: Recipe, step: Callable[[str], None]) -> Package:
        return export_package(
            self.model,
            recipe=recipe,
            output=folder,
            images=_PARITY_IMAGES,
            calibration=self.calibration if recipe.precision == "int8" else None,
            step=lambda text: step(f"{folder.name}: {text}"),
        )

    def _measure(
        self, packages: list[Package], request: Request, step: Callable[[str], None]
    ) -> list[Profile]:
        profiles = measure_packages(packages, self.name, self.device, request, step)
        for profile in profiles:
            if not profile.complete or profile.latency is None:
                why = profile.incomplete_reason or "no time was measured"
                raise SepViTError(f"the measurement on {self.name} is not complete: {why}")
        return profiles

    def _run_in_torch(self, int8: LayerQuantization, choice: Choice) -> np.ndarray:
        parts = layers_by_part(list(int8.stored.layers))
        floats = {name for part in choice.keep_float for name in parts[part]}
        layers = {n: layer for n, layer in int8.stored.layers.items() if n not in floats}
        mixed = replace(int8, stored=replace(int8.stored, layers=layers))
        return mixed.reference(self.model)(self.pixels)

    def _recipe(self, choice: Choice) -> Recipe:
        own = self.recipe.quantization
        kept = (*own.keep_float, *sorted(choice.keep_float))
        return self.recipe.model_copy(
            update={
                "description": f"int8, {len(kept)} parts in float for {self.name}",
                "quantization": own.model_copy(update={"keep_float": kept}),
            }
        )

    def _verify(
        self,
        recipe: Recipe,
        chosen: Choice,
        reference: np.ndarray,
        step: Callable[[str], None],
    ) -> tuple[Loss, Profile]:
        """Export by the recipe; measure accuracy in the runtime and time on the device."""
        assert chosen.loss is not None
        with tempfile.TemporaryDirectory() as scratch:
            package = self._export(Path(scratch) / "chosen", recipe, step)
            (profile,) = self._measure([package], replace(self.request, operations=False), step)
            loss = chosen.loss
            if package.manifest.verification == "run":
                step("measuring the accuracy of the package")
                session = PackageSession(package, threads=1)
                loss = loss_of(reference, session.run_pixels(self.pixels)[0], self.labels)
                del session  # before its files
        if loss.points > self.within:
            raise CheckFailed(
                f"the package loses {loss.points:.2f} points in {recipe.target}, where torch's "
                f"int8 loses {chosen.loss.points:.2f}; give a smaller --within"
            )
        return loss, profile


def _doubts(profiles: Sequence[Profile]) -> tuple[str, ...]:
    """Return why the times of some of the profiles are not trustworthy."""
    trusts = [trust for profile in profiles if (trust := trust_of(profile)) is not None]
    return tuple(dict.fromkeys(trust.because for trust in trusts if not trust.trustworthy))
