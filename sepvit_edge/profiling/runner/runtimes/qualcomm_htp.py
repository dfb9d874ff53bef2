"""Qualcomm's HTP by ONNX Runtime's QNN provider; see sepvit_edge/backends/qualcomm_htp.py."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Any

from ..errors import Refusal
from ..latency import timed
from .interface import UNTRIED, WARMUP_RUNS, Call, operations
from .onnxruntime import ONNXRuntime


class QualcommHTP(ONNXRuntime):
    """The HTP; `execution` names an SoC, whose compiled program is loaded.

    Without `execution` the provider compiles model.onnx on the device. On x86-64 it emulates the
    HTP, by default that of the package's first SoC.
    """

    caveats = (("experience with this device", UNTRIED),)

    def __init__(self, manifest: dict, threads: int | None, execution: str | None) -> None:
        import onnxruntime
        import onnxruntime_qnn

        self.ort, self.qnn, self.threads = onnxruntime, onnxruntime_qnn, threads
        self.emulated = platform.machine().lower() in ("x86_64", "amd64")
        programs = [name.strip() for name in manifest["runtime"]["options"]["socs"].split(",")]
        if execution is None and self.emulated:
            execution = programs[0]
        if execution is not None and execution not in programs:
            raise Refusal(
                f"the package has no program for {execution}, only for {', '.join(programs)}"
            )
        if self.emulated:
            self.caveats = (("times of the HTP", "this machine emulates it"),)
        self.execution = f"HTP of {execution}" if execution else "HTP, compiled here"
        # A compiled program states both options itself.
        self.config = {} if execution else {"enable_htp_fp16_precision": "1"}
        if execution is not None:
            self.model = f"{execution}.onnx"
        else:
            self.config["offload_graph_io_quantization"] = "0"

    def _session(self, file: Path, profile: str | None = None) -> Any:
        name, options = "QNNExecutionProvider", self._options(None)
        if not any(device.ep_name == name for device in self.ort.get_ep_devices()):
            self.ort.register_execution_provider_library(name, self.qnn.get_library_path())
        devices = [device for device in self.ort.get_ep_devices() if device.ep_name == name]
        config = {"backend_path": self.qnn.get_qnn_htp_path(), **self.config}
        if profile is not None:
            config.update(profiling_level="detailed", profiling_file_path=profile)
        # Without this, operations that the provider refuses run on the CPU unnoticed.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_provider_for_devices(devices[:1], config)
        return self.ort.InferenceSession(str(file), options)

    def operations(self, file: Path, call: Call, arrays: list, runs: int) -> dict:
        """Run under QNN's profiler, which counts each operation's cycles."""
        with tempfile.TemporaryDirectory() as scratch:
            events = Path(scratch) / "events.csv"
            session = self._session(file, str(events))
            feed = dict(zip([value.name for value in session.get_inputs()], arrays))
            whole = 0.0
            for run in range(WARMUP_RUNS + runs):
                session.run(None, feed)
                whole += timed(call, arrays) * (run >= WARMUP_RUNS)
            del session  # the file is complete then
            items = qnn_cycles(events.read_text(encoding="utf-8"), runs)
        return operations("QNN's profiler, cycles as shares of the whole", runs, whole, items)


def qnn_cycles(text: str, runs: int) -> dict:
    """Sum microseconds by operation over the last runs in QNN's events (CSV).

    A run begins with the cycles of the whole, and ends with its time.
    """
    records: list = []
    for line in text.splitlines()[1:]:
        _, message, value, unit, _, _, name = line.split(",", 6)
        if name == "Accelerator (execute) time (cycles)":
            records.append({"cycles": float(value), "us": 0.0, "nodes": {}})
        elif records and name == "Accelerator (execute) time" and unit == "US":
            records[-1]["us"] = float(value)
        elif records and message == "NODE" and unit == "CYCLES":
            node = name.split(":OpId_")[0]
            nodes = records[-1]["nodes"]
            nodes[node] = nodes.get(node, 0.0) + float(value)
    items: dict = {}
    for record in records[-runs:]:
        for node, cycles in record["nodes"].items():
            key = (node, node.rsplit("__", 1)[-1], "HTP")
            items[key] = items.get(key, 0.0) + cycles * record["us"] / record["cycles"]
    return items
