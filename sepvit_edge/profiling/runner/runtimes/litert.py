"""LiteRT's interpreter; see sepvit_edge/backends/litert.py."""

from __future__ import annotations

from pathlib import Path

from ..errors import Refusal
from .interface import Call, Runtime


class LiteRT(Runtime):
    """LiteRT with its XNNPACK delegate on the CPU.

    The Python interface reports no times of operations, so they are not timed.
    """

    model = "model.tflite"

    def __init__(self, manifest: dict, threads: int | None, execution: str | None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter
        if execution not in (None, "CPU"):
            raise Refusal(f"this runner has LiteRT for the CPU, not for {execution}")
        self.execution = "CPU"
        self.threads = threads
        self.config = {"delegate": "XNNPACK"}

    def load(self, file: Path, keeps_output: bool = True) -> Call:
        """Make a program callable."""
        interpreter = self.interpreter(str(file), num_threads=self.threads)
        interpreter.allocate_tensors()
        (signature,) = interpreter.get_signature_list()
        run = interpreter.get_signature_runner(signature)

        def call(arrays: list) -> list:
            outputs = run(args_0=arrays[0])
            return [outputs[f"output_{i}"] for i in range(len(outputs))]

        return call
