"""The runtimes: one file each, and what they have in common.

Everything that knows a runtime is in its file, and the runtime's library is imported there only.
Adding a runtime is adding a file here, a line to `BACKENDS`, and a recipe in export/.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import SepViTError, unknown_name
from .support.toolkit import Toolkit

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from ..config.recipe import Recipe
    from ..package.manifest import (
        InputFacts,
        Manifest,
        ModelFacts,
        Placement,
        QuantizationFacts,
        Verification,
    )


@dataclass(frozen=True)
class Runtime:
    """A runtime's library and the versions of it that packages work with.

    Attributes
    ----------
    distribution : str
        Its name on the package index.
    minimum, below : str
        The supported range, ``minimum <= version < below``.
    extra : str
        Extras of SepViT-Edge that bring it; the target's name unless given.
    tools : tuple of str
        Other distributions that the packages' bytes depend on.
    npu : bool
        Whether it is for a unit that PCs lack: exported when it is named, not with all the others.
    toolkit : Toolkit or None
        Its environment, where it cannot share this one.
    """

    distribution: str
    minimum: str
    below: str
    extra: str = ""
    tools: tuple[str, ...] = ()
    npu: bool = False
    toolkit: Toolkit | None = None


# By target, which is also the name of the backend's file, with "_" for "-".
BACKENDS = {
    "coreml": Runtime("coremltools", "9.0", "9.1"),
    "ethos-u": Runtime(
        "executorch", "1.4.1", "1.5", tools=("ethos-u-vela", "tosa-tools"), npu=True
    ),
    "executorch": Runtime("executorch", "1.4.1", "1.5"),
    "executorch-coreml": Runtime(
        "executorch", "1.4.1", "1.5", extra="executorch,coreml", tools=("coremltools",), npu=True
    ),
    "executorch-vulkan": Runtime("executorch", "1.4.1", "1.5", extra="executorch", npu=True),
    "onnxruntime": Runtime("onnxruntime", "1.23", "1.32"),
    "openvino": Runtime("openvino", "2026.4", "2026.5"),
    "openvino-npu": Runtime("openvino", "2026.4", "2026.5", extra="openvino", npu=True),
    "qualcomm-htp": Runtime(
        "onnxruntime-qnn", "2.7", "2.8", extra="qualcomm", tools=("onnxruntime",), npu=True
    ),
    "rockchip": Runtime(
        "rknn-toolkit2",
        "2.5.0",
        "2.5.1",
        npu=True,
        # It imports pkg_resources, which later setuptools no longer have.
        toolkit=Toolkit("rknn-toolkit2", "2.5.0", ("setuptools<81",), size_gb=5.6),
    ),
}


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
        Which implementation ran.
    microseconds : float
        Mean over the runs.
    """

    name: str
    kind: str
    kernel: str
    microseconds: float


class Session(Protocol):
    """A loaded model, ready to run."""

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch: uint8 (B, size, size, 3) in, the model's outputs, logits first, out."""
        ...

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Time every operation over some runs of one batch."""
        ...


@dataclass(frozen=True)
class Lowering:
    """What a backend is given to lower.

    Attributes
    ----------
    program : torch.export.ExportedProgram
        The traced edge model (`sepvit_edge.model.graph.trace`); node names tell stage, block, part.
    outputs : tuple of str
        Names for its outputs: ``logits``, and the taps of a tapped twin.
    recipe : Recipe
        Precision and options.
    labels : tuple of str
        Class names.
    model, input, quantization : ModelFacts, InputFacts, QuantizationFacts
        What the manifest will say, for runtimes whose files carry metadata.
    step : callable
        Told what a long compilation is at, for a progress display.
    """

    program: ExportedProgram
    outputs: tuple[str, ...]
    recipe: Recipe
    labels: tuple[str, ...]
    model: ModelFacts
    input: InputFacts
    quantization: QuantizationFacts | None = None
    step: Callable[[str], None] = lambda _: None


class Backend(Protocol):
    """What a runtime's file offers."""

    target: str

    def lower(self, job: Lowering, folder: Path) -> Placement:
        """Write the model file or files into a folder, and tell which operation runs where."""
        ...

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> Session:
        """Load a package's model; `threads` None is the runtime's own choice."""
        ...

    def verification(self) -> Verification:
        """How a package is checked on this system; only what is ``"run"`` is timed."""
        ...


class MissingRuntime(SepViTError):
    """A runtime that is not installed; the sentence names the extra that brings it."""

    def __init__(self, library: str, target: str) -> None:
        extra = BACKENDS[target].extra or target
        super().__init__(f"{library} is not installed; run: pip install 'sepvit-edge[{extra}]'")


def check_input(pixels: np.ndarray, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """Refuse an input that a runtime would take for another one.

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
    """Say that nothing here computes a package."""
    return SepViTError(
        f"a package for {target} runs on its device only; nothing on this system computes it"
    )


def host_targets() -> list[str]:
    """Targets whose packages a PC runs or evaluates; the others are for NPUs."""
    return [target for target, runtime in BACKENDS.items() if not runtime.npu]


def get_backend(target: str) -> Backend:
    """Load the backend of a target.

    Raises
    ------
    SepViTError
        If there is no such target, or its runtime is not installed; the extra is named.
    """
    if target not in BACKENDS:
        raise unknown_name("target", target, BACKENDS)
    try:
        module = importlib.import_module(f".{target.replace('-', '_')}", __package__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sepvit_edge"):
            raise
        raise MissingRuntime(error.name or target, target) from None
    backend: Backend = module.backend
    return backend
