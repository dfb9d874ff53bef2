"""ExecuTorch with its Vulkan delegate, for the GPUs of Android phones: model.pte."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config.toml import Strict
from ..package.manifest import Manifest, Placement
from ..package.verification import Verification
from .executorch import delegation, quiet, write_program
from .interface import LoweringJob, Session, runs_on_device_only


class Options(Strict):
    """Options of a Vulkan recipe: none."""


class ExecuTorchVulkanBackend:
    """The target's backend; see `interface.Backend`."""

    target = "executorch-vulkan"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Lower to Vulkan; fp16 is stored and computed inside, inputs and outputs are float32."""
        job.recipe.options_as(Options)
        half = job.recipe.precision == "fp16"
        with quiet(), _unconfigured_root():
            program = write_program(job, _partitioner(half), folder)
        return delegation(program, job, "Vulkan", "GPU", half=half)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> Session:
        """Refuse: the wheel's runtime does not include Vulkan."""
        raise runs_on_device_only(self.target)

    def verification(self) -> Verification:
        """Return "compiled": nothing on this system runs it."""
        return "compiled"


def _partitioner(half: bool) -> Any:
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    return VulkanPartitioner({"force_fp16": half})


@contextmanager
def _unconfigured_root() -> Iterator[None]:
    """Keep the root logger's level: importing the partitioner sets it to DEBUG."""
    root = logging.getLogger()
    level = root.level
    try:
        yield
    finally:
        root.setLevel(level)


backend = ExecuTorchVulkanBackend()
