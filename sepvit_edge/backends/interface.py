"""The roles of a backend: its job, its sessions, its timings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import SepViTError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from ..config.recipe import Recipe
    from ..package.manifest import (
        InputFacts,
        Manifest,
        ModelFacts,
        OutputFacts,
        Placement,
        QuantizationFacts,
        RegionInput,
        Task,
    )
    from ..package.verification import Verification


@dataclass(frozen=True)
class LoweringJob:
    """Everything that a backend needs to write a model file.

    Attributes
    ----------
    program : torch.export.ExportedProgram
        The traced edge model (`sepvit_edge.model.graph.trace`); node names tell stage, block, part.
    outputs : tuple of str
        Names of its outputs: those of `results`, then the taps of a tapped twin.
    recipe : Recipe
        Precision and options.
    labels : tuple of str
        Class names.
    model, quantization : ModelFacts, QuantizationFacts
        The manifest's facts, for runtimes whose files carry metadata.
    input : InputFacts or RegionInput
        The same of the input: an image, or regions of one.
    results : tuple of OutputFacts
        The manifest's facts of the outputs, taps left out.
    task : str
        What the model answers.
    step : callable
        Called with the name of each step of a long compilation, for a progress display.
    """

    program: ExportedProgram
    outputs: tuple[str, ...]
    recipe: Recipe
    labels: tuple[str, ...]
    model: ModelFacts
    input: InputFacts | RegionInput
    results: tuple[OutputFacts, ...] = ()
    task: Task = "classification"
    quantization: QuantizationFacts | None = None
    step: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class OpTiming:
    """Time of one operation, as its runtime reports it.

    Attributes
    ----------
    name : str
        The runtime's name of it; `sepvit_edge.model.graph.part_of` tells where it belongs.
    kind : str
        The runtime's name of its type.
    kernel : str
        The implementation that ran.
    microseconds : float
        Mean over the runs.
    """

    name: str
    kind: str
    kernel: str
    microseconds: float


class Session(ABC):
    """A loaded model, ready to run."""

    @abstractmethod
    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch.

        Parameters
        ----------
        pixels : numpy.ndarray
            Shape and dtype as the manifest's input states.

        Returns
        -------
        list of numpy.ndarray
            The model's outputs, logits first.
        """

    @abstractmethod
    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Time every operation over a number of runs of one batch.

        Raises
        ------
        SepViTError
            If times mean nothing here: the model is emulated, or its runtime reports none.
        """

    @property
    def on_cpu(self) -> Session | None:
        """The same model file on a CPU; None if no CPU runtime opens it.

        Offered for units with special arithmetic: the two sessions differ by that arithmetic only.
        """
        return None


class Backend(Protocol):
    """A runtime's file: writes its model files, and loads them."""

    target: str

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Write the model file or files into a folder, and return which operation runs where."""
        ...

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> Session:
        """Load a package's model; with `threads` None the runtime chooses their number."""
        ...

    def verification(self) -> Verification:
        """Return how a package is checked on this system; only ``"run"`` can be timed."""
        ...


def check_input(pixels: np.ndarray, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """Reject an input that a runtime would misread without a word.

    Raises
    ------
    SepViTError
        If shape or dtype differ.
    """
    if pixels.shape != shape or pixels.dtype != dtype:
        raise SepViTError(
            f"the package takes {np.dtype(dtype)} {shape}, not {pixels.dtype} {pixels.shape}"
        )


def runs_on_device_only(target: str) -> SepViTError:
    """Return the error for a package that nothing on this system computes."""
    return SepViTError(
        f"a package for {target} runs on its device only; nothing on this system computes it"
    )
