"""Rockchip's NPU by RKNN-Toolkit-Lite2; see sepvit_edge/backends/rockchip.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .... import machine
from ..errors import Refusal
from .interface import Call, Runtime


class RKNNLite(Runtime):
    """The NPU of a Rockchip board. Written from the library's documentation and never run.

    The library prints the times of operations and returns none, so they are not timed.
    """

    def __init__(self, manifest: dict, threads: int | None, execution: str | None) -> None:
        from rknnlite.api import RKNNLite as Library

        self.library = Library
        if execution not in (None, "NPU"):
            raise Refusal(f"a Rockchip package runs on the NPU, not on {execution}")
        self.execution = "NPU"
        self.config = {}
        compatible = machine.read_text("/proc/device-tree/compatible") or ""
        chips = re.findall(r"rockchip,(rk\d+)", compatible)
        files = {file["path"] for file in manifest["files"]}
        fitting = [name for name in (f"model-{chip}.rknn" for chip in chips) if name in files]
        if not fitting:
            built = ", ".join(sorted(name for name in files if name.endswith(".rknn")))
            board = ", ".join(chips) or "not a Rockchip"
            raise Refusal(f"the package has {built}; this board is {board}")
        self.model = fitting[0]

    def load(self, file: Path, keeps_output: bool = True) -> Call:
        """Make a program callable."""
        rknn = self.library()
        if rknn.load_rknn(str(file)) != 0 or rknn.init_runtime() != 0:
            raise Refusal(f"the NPU's runtime cannot load {file.name}")

        def call(arrays: list) -> list:
            outputs = rknn.inference(inputs=arrays, data_format=["nchw"])
            return [np.array(output, np.float32) for output in outputs]

        return call
