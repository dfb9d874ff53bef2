"""ONNX Runtime; see sepvit_edge/backends/onnxruntime.py."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ..errors import Refusal
from ..latency import timed
from .interface import WARMUP_RUNS, Call, Runtime, operations


class ONNXRuntime(Runtime):
    """ONNX Runtime with one execution provider, and no other that could step in for it."""

    model = "model.onnx"

    def __init__(self, manifest: dict, threads: int | None, execution: str | None) -> None:
        import onnxruntime

        self.ort = onnxruntime
        self.execution = execution or "CPUExecutionProvider"
        if self.execution not in onnxruntime.get_available_providers():
            offered = ", ".join(onnxruntime.get_available_providers())
            raise Refusal(f"ONNX Runtime has no {self.execution} here, only {offered}")
        self.threads = threads
        self.config = {"graph_optimization_level": "ORT_ENABLE_ALL"}

    def _options(self, profile: str | None) -> Any:
        options = self.ort.SessionOptions()
        options.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        return options

    def _session(self, file: Path, profile: str | None = None) -> Any:
        options = self._options(profile)
        if self.execution != "CPUExecutionProvider":
            # Without this, operations that the provider refuses run on the CPU unnoticed.
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return self.ort.InferenceSession(str(file), options, providers=[self.execution])

    def load(self, file: Path, keeps_output: bool = True) -> Call:
        """Make a program callable."""
        session = self._session(file)
        names = [value.name for value in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays)))

    def operations(self, file: Path, call: Call, arrays: list, runs: int) -> dict:
        """Run under the runtime's own profiler."""
        with tempfile.TemporaryDirectory() as scratch:
            session = self._session(file, str(Path(scratch) / "profile"))
            feed = dict(zip([value.name for value in session.get_inputs()], arrays))
            for _ in range(WARMUP_RUNS):
                session.run(None, feed)
            whole = observed = 0.0
            for _ in range(runs):
                observed += timed(lambda feed: session.run(None, feed), feed)
                whole += timed(call, arrays)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        items: dict = {}
        seen: dict = {}
        for event in events:
            name = event["name"]
            if event["cat"] != "Node" or not name.endswith("_kernel_time"):
                continue
            name, facts = name[: -len("_kernel_time")], event["args"]
            seen[name] = seen.get(name, 0) + 1
            shapes = facts.get("output_type_shape") or [{"": None}]
            kernel = f"{facts.get('provider', '')} {next(iter(shapes[0]), '')}".strip()
            key = (name, facts["op_name"], kernel)
            items[key] = items.get(key, 0.0) + event["dur"] * (seen[name] > WARMUP_RUNS)
        return operations("ONNX Runtime's profiler", runs, whole, items, observed)
