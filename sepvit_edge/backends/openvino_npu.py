"""OpenVINO for Intel's NPUs (Core Ultra): model.xml and model.bin, static and of rank 4 at most.

The NPU's compiler is part of Intel's driver, not of OpenVINO's wheel. With the driver, the model is
compiled and run; without it, the package holds the converted model, and states that no compiler
has seen it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import openvino as ov

from ..config.toml import Strict
from ..package.manifest import Manifest, PlacedOps, Placement
from ..package.verification import Verification
from .interface import LoweringJob, Session, runs_on_device_only
from .openvino import OpenVINOSession, compile_ir, write_ir

DEVICE = "NPU"


class Options(Strict):
    """Options of a recipe for Intel's NPU: none."""


class OpenVINONPUBackend:
    """The target's backend; see `interface.Backend`."""

    target = "openvino-npu"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Convert as for the CPU; compile for the NPU if its compiler is installed."""
        job.recipe.options_as(Options)
        model = write_ir(job, folder)
        here = _here()
        if here:
            compile_ir(folder, DEVICE, {})
        kinds = Counter(node.get_type_name() for node in model.get_ops())
        for no_work in ("Constant", "Parameter", "Result"):
            del kinds[no_work]
        return Placement(
            device=DEVICE if here else "not decided on this system: it has no compiler for the NPU",
            placed=[
                PlacedOps(
                    where="compiled for the NPU" if here else "OpenVINO IR",
                    precision="fp16" if job.recipe.precision == "fp16" else "int8 and fp16",
                    accelerated=here,
                    ops=sum(kinds.values()),
                    macs_share=1.0,
                    kinds=dict(sorted(kinds.items())),
                )
            ],
        )

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> Session:
        """Load for the NPU."""
        if not _here():
            raise runs_on_device_only(self.target)
        return OpenVINOSession(folder, DEVICE, {})

    def verification(self) -> Verification:
        """Return "run" with an NPU, "compiled" without."""
        return "run" if _here() else "compiled"


def _here() -> bool:
    return DEVICE in ov.Core().available_devices


backend = OpenVINONPUBackend()
