"""How the logits of a package came about when it was checked, and what that proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verification = Literal["run", "emulated", "reference model", "simulated", "evaluated", "compiled"]


@dataclass(frozen=True)
class Level:
    """What a verification means.

    Attributes
    ----------
    summary : str
        A few words, for the table of an export.
    proof : str
        What it proves about the device and what it leaves open, for the page of NPU targets.
    """

    summary: str
    proof: str


# From the strongest to the weakest.
LEVELS: dict[Verification, Level] = {
    "run": Level(
        "run by the runtime",
        "computed by the hardware itself, where the package was exported",
    ),
    "emulated": Level(
        "run by the vendor's emulation of the device",
        "the vendor's emulation computed the compiled program: numerics and placement are the "
        "device's, its speed is not known",
    ),
    "reference model": Level(
        "run by the reference model of the device's instructions",
        "the reference model of the instruction set computed the lowered program; what the "
        "compiler makes of it afterwards was not run",
    ),
    "simulated": Level(
        "run by the vendor's simulator",
        "the vendor's simulator computed the converted operations; drivers and scheduling were "
        "not run",
    ),
    "evaluated": Level(
        "evaluated operation by operation; the runtime is not available on this system",
        "an evaluator of this project computed the program on disk, operation by operation; the "
        "device may round differently",
    ),
    "compiled": Level(
        "compiled, not run",
        "the toolchain accepted the model and nothing was computed: neither numerics nor speed "
        "are known",
    ),
}
