"""OpenVINO, on the CPU or an NPU; see sepvit_edge/backends/openvino.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Refusal
from ..latency import timed
from .interface import UNTRIED, WARMUP_RUNS, Call, Runtime, operations


class OpenVINO(Runtime):
    """OpenVINO on the CPU, or on the device that `execution` names."""

    model = "model.xml"
    device = "CPU"

    def __init__(self, manifest: dict, threads: int | None, execution: str | None) -> None:
        import openvino

        self.ov = openvino
        self.execution = execution or self.device
        self.config = {"PERFORMANCE_HINT": "LATENCY"}
        precision = manifest["runtime"]["options"].get("inference_precision", "f32")
        if self.execution == "CPU":
            if precision != "device":
                self.config["INFERENCE_PRECISION_HINT"] = precision
            if threads is not None:
                self.config["INFERENCE_NUM_THREADS"] = str(threads)

    def _compile(self, file: Path, **more: str) -> Any:
        core = self.ov.Core()
        if self.execution not in core.available_devices:
            raise Refusal(
                f"OpenVINO sees no {self.execution} here, only {', '.join(core.available_devices)}"
            )
        return core.compile_model(str(file), self.execution, {**self.config, **more})

    def load(self, file: Path, keeps_output: bool = True) -> Call:
        """Make a program callable."""
        compiled = self._compile(file)
        request = compiled.create_infer_request()
        outputs = compiled.outputs

        def call(arrays: list) -> list:
            results = request.infer(arrays, share_inputs=True)
            return [np.array(results[port]) for port in outputs]

        return call

    def operations(self, file: Path, call: Call, arrays: list, runs: int) -> dict:
        """Read the plugin's counters (PERF_COUNT), which are means since the model was loaded."""
        compiled = self._compile(file, PERF_COUNT="YES")
        request = compiled.create_infer_request()
        names = origins(compiled)

        def means() -> dict:
            found: dict = {}
            for node in request.profiling_info:
                if node.status == self.ov.ProfilingInfo.Status.EXECUTED:
                    name = names.get(node.node_name, node.node_name)
                    key = (name, node.node_type, node.exec_type)
                    found[key] = found.get(key, 0.0) + node.real_time.total_seconds()
            return found

        for _ in range(WARMUP_RUNS):
            request.infer(arrays)
        before = means()
        whole = observed = 0.0
        for _ in range(runs):
            observed += timed(request.infer, arrays)
            whole += timed(call, arrays)
        # The warm-up runs are far slower, so they are taken out of the means again.
        count = WARMUP_RUNS + runs
        items = {
            key: max(now * count - before.get(key, 0.0) * WARMUP_RUNS, 0.0) * 1e6
            for key, now in means().items()
        }
        return operations("OpenVINO's performance counters", runs, whole, items, observed)


class OpenVINONPU(OpenVINO):
    """OpenVINO on an NPU; see sepvit_edge/backends/openvino_npu.py."""

    device = "NPU"
    caveats = (("experience with this device", UNTRIED),)


def origins(compiled: Any) -> dict:
    """Map operations that OpenVINO merged and named itself to a name from the model's file."""
    names = {}
    for node in compiled.get_runtime_model().get_ops():
        told = node.get_rt_info()
        merged = (
            str(told["originalLayersNames"].astype(str)) if "originalLayersNames" in told else ""
        )
        own = node.get_friendly_name()
        if "/" not in own:
            names[own] = next((name for name in merged.split(",") if "/" in name), own)
    return names
