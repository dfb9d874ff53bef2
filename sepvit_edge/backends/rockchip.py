"""Rockchip's NPUs through rknn-toolkit2: a model-PLATFORM.rknn each, and model.onnx beside them.

The toolkit needs torch 2.4, so it is installed in its own virtual environment (`toolkit.py`), where
`rockchip_worker.py` drives it. Its simulator only runs a model that it has just built and cannot
open a .rknn file: that is why the package holds model.onnx.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config.toml import Strict
from ..errors import SepViTError
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session, check_input
from .registry import toolkit_of
from .support.cache import cached, cached_arrays
from .support.onnx_file import export_onnx, keep_weights_normal, write_onnx
from .support.placement import PlacementBuilder
from .support.toolkit_process import ToolkitProcess

TARGET = "rockchip"
ONNX = "model.onnx"
_OPSET = 18  # the toolkit knows 12 to 19
_WORKER = Path(__file__).parent / "support" / "rockchip_worker.py"
_CORES = ("rk3576", "rk3588")  # have several
_PLATFORMS = ("rk3562", "rk3566", "rk3568", "rk3576", "rk3588")
# Kinds that the compiler lists beside the operations of the network.
_NO_WORK = ("InputOperator", "OutputOperator")
_REASONS = {
    "Transpose": 'the NPU transposes a matrix of whole groups of 16 rows; "not aligned" in the log',
    "Reshape": "the logits leave the NPU's layout",
}
# A row of the compiler's table; layers that the compiler inserted have no name.
_LAYER = re.compile(
    r"\] \d+ +(?P<kind>\S+) +(?P<dtype>[A-Z]+\d+) +(?P<place>NPU|CPU|GPU) (?:.* (?P<name>\S+:\S+))?"
)


class Options(Strict):
    """Options of a Rockchip recipe.

    Attributes
    ----------
    platforms : str
        Chips to build for, separated by commas: ``"rk3588,rk3566"``. The first one is simulated.
    optimization_level : int
        0 to 3, as in the toolkit.
    single_core : bool
        Whether chips with several NPU cores get a program for one core only. Otherwise the toolkit
        writes one for each number of cores, and commands, not weights, fill the file.
    """

    platforms: str = "rk3588"
    optimization_level: int = 3
    single_core: bool = True

    @property
    def chips(self) -> list[str]:
        """The platforms as a list.

        Raises
        ------
        SepViTError
            If one of them is unknown.
        """
        chips = [chip.strip() for chip in self.platforms.split(",")]
        for chip in chips:
            if chip not in _PLATFORMS:
                raise SepViTError(
                    f"the recipe's options: platforms names {chip!r}, which is not one of "
                    f"{', '.join(_PLATFORMS)}"
                )
        return chips


@dataclass(frozen=True)
class Layer:
    """One row of the compiler's table.

    Attributes
    ----------
    kind, dtype : str
        The compiler's names.
    place : str
        ``"NPU"`` or ``"CPU"``.
    name : str
        Name of the ONNX operation that it came from.
    """

    kind: str
    dtype: str
    place: str
    name: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Operations of the program that it computes, as far as they multiply."""
        if self.kind == "exSDPAttention":  # named after the second of its products
            return (self.name.removesuffix("_1"), self.name)
        return (self.name,)


class RockchipBackend:
    """The target's backend; see `interface.Backend`."""

    target = TARGET

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Write the ONNX file and compile it for every platform.

        Raises
        ------
        SepViTError
            If the toolkit is missing, or rejects the model.
        """
        options = job.recipe.options_as(Options)
        chips = options.chips
        toolkit_of(TARGET).check()
        model = export_onnx(job, _OPSET)
        keep_weights_normal(model)
        write_onnx(model, job, folder / ONNX)
        facts = _job(chips, options, simulate=False)

        def make(made: Path) -> None:
            with _process(folder / ONNX, facts) as worker:
                worker.answer()
                for chip in chips:
                    for name in (f"model-{chip}.rknn", _log(chip)):
                        shutil.copyfile(worker.folder / name, made / name)

        cached(folder, make, _key(folder / ONNX, facts))
        layers = read_layers((folder / _log(chips[0])).read_text(errors="replace"))
        for chip in chips:
            (folder / _log(chip)).unlink()
        return _placement(layers, job, chips[0])

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> RockchipSession:
        """Load into the toolkit's simulator, which chooses its threads itself."""
        toolkit_of(TARGET).check()
        return RockchipSession(folder, manifest)

    def verification(self) -> Verification:
        """Return "simulated": the toolkit has a simulator of the NPU's operations."""
        return "simulated"


def _job(chips: list[str], options: Options, simulate: bool) -> dict[str, Any]:
    config = {"optimization_level": options.optimization_level}
    return {
        "platforms": chips,
        "config": {
            chip: config | ({"single_core_mode": options.single_core} if chip in _CORES else {})
            for chip in chips
        },
        "simulate": simulate,
    }


def _process(onnx: Path, facts: dict[str, Any]) -> ToolkitProcess:
    return ToolkitProcess(toolkit_of(TARGET), _WORKER, facts, {ONNX: onnx})


def _key(onnx: Path, facts: dict[str, Any]) -> dict[str, Any]:
    return {"tool": toolkit_of(TARGET).requirements, "worker": _WORKER, "onnx": onnx, "job": facts}


def _log(chip: str) -> str:
    return f"build-{chip}.log"


def read_layers(log: str) -> list[Layer]:
    """Read the table of layers out of the compiler's log, in the order of execution."""
    matches = (_LAYER.search(line) for line in log.splitlines())
    return [
        Layer(m["kind"], m["dtype"], m["place"], _origin(m["name"] or "", m["kind"]))
        for m in matches
        if m is not None and m["kind"] not in _NO_WORK
    ]


def _origin(name: str, kind: str) -> str:
    """Return the name of the operation in the ONNX file, without the compiler's suffixes.

    It appends their kind to the first name of two that it joins (``ConvAdd``), and numbers to tiles
    of one.
    """
    name = name.partition(":")[2].partition("#")[0].removesuffix(f"_{kind}")
    return re.sub(r"_tile\d+$", "", name)


def _placement(layers: list[Layer], job: LoweringJob, chip: str) -> Placement:
    if not layers:
        raise SepViTError("rknn-toolkit2 did not say which layer runs where; report its version")
    builder = PlacementBuilder(job.program)
    for name in ("NPU", "CPU"):
        place = builder.place(f"{chip} {name}", accelerated=name == "NPU")
        for layer in layers:
            if layer.place == name:
                place.add(layer.dtype.lower(), layer.kind, layer.sources)
    for layer in layers:
        if layer.place != "NPU":
            reason = _REASONS.get(layer.kind, f"the compiler places this {layer.kind} on it")
            builder.outside(layer.name, layer.kind, reason)
    return builder.placement(f"{chip} NPU")


class RockchipSession(Session):
    """The model in the toolkit's simulator; see `interface.Session`.

    The simulator builds the model again, so it starts with the first input whose result is not
    cached.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        options = manifest.runtime.options_as(Options)
        self._facts = _job(options.chips[:1], options, simulate=True)
        self._onnx = folder / ONNX
        self._shape = tuple(manifest.input.shape)
        self._worker: ToolkitProcess | None = None

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch."""
        check_input(pixels, self._shape, np.float32)
        key = _key(self._onnx, self._facts) | {"pixels": pixels}
        return cached_arrays(lambda: self._simulate(pixels), key)

    def _simulate(self, pixels: np.ndarray) -> list[np.ndarray]:
        if self._worker is None:
            self._worker = _process(self._onnx, self._facts)
            self._worker.answer()
        folder = self._worker.folder
        np.save(folder / "input.npy", pixels)
        self._worker.ask()
        with np.load(folder / "outputs.npz") as outputs:
            return [outputs[name].astype(np.float32) for name in outputs.files]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Refuse: a simulator's times mean nothing.

        Raises
        ------
        SepViTError
            Always.
        """
        raise SepViTError("a simulator's times mean nothing; measure on the board")


backend = RockchipBackend()
