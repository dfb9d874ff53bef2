"""ExecuTorch's Python runtime; see sepvit_edge/backends/executorch.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import Refusal
from ..memory import resident_mb
from .interface import Call, Runtime


class ExecuTorch(Runtime):
    """ExecuTorch with XNNPACK; its Python runtime makes tensors with torch.

    Its wheel is built without the event tracer, so it cannot time operations; see
    `sepvit_edge.profiling.runner.roofs.time_kit`.
    """

    model = "model.pte"

    def __init__(self, manifest: dict, threads: int | None, execution: str | None) -> None:
        before = resident_mb()
        import torch

        if before is not None:
            self.caveats = (
                (
                    "memory of the runtime alone",
                    "ExecuTorch's Python runtime imports PyTorch, "
                    f"{(resident_mb() or 0) - before:.0f} MB of the figures; its C++ one does not",
                ),
            )
        from executorch import runtime
        from executorch.extension.pybindings import portable_lib

        if execution not in (None, "XNNPACK"):
            raise Refusal(f"ExecuTorch's wheel has XNNPACK, not {execution}")
        self.torch, self.runtime = torch, runtime.Runtime.get()
        self.execution = "XNNPACK"
        self.config = {}
        self.loaded: list = []
        # A process has one thread pool, whose size can be set only while nothing is loaded.
        if threads is not None and threads != portable_lib._threadpool_get_thread_count():
            portable_lib._unsafe_reset_threadpool(threads)

    def load(self, file: Path, keeps_output: bool = True) -> Call:
        """Make a program callable."""
        program = self.runtime.load_program(file)
        method = program.load_method("forward")
        self.loaded.append(program)

        def call(arrays: list) -> list:
            inputs = [self.torch.from_numpy(np.require(a, requirements=["C", "W"])) for a in arrays]
            outputs = [output.numpy() for output in method.execute(inputs)]
            return [output.copy() for output in outputs] if keeps_output else outputs

        return call
