#!/usr/bin/env python3
"""Check and time one package on the device that this file runs on.

    python3 runner.py PACKAGE --threads 4

One file for every device: it needs Python 3.9, numpy and the package's runtime, and nothing else of
SepViT-Edge. It prints one JSON document (export/profile-2.0.schema.json). A package whose files
were changed, or whose golden vectors give other logits here, is not timed.

Phases, each in a process of its own so that none disturbs the next: the golden vectors; a few cold
starts; then, in this process, warm-up, the timed runs, memory, per-operation times, the machine's
roofs and the sustained run.

Exit status 0: measured; 1: the golden vectors differ; 2: refused, for the reason on standard error;
3: whoever started it went away.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import numpy as np
except ModuleNotFoundError:
    print("runner: numpy is not installed on this device; --bootstrap does", file=sys.stderr)
    sys.exit(2)

VERSION = "1"
PROFILE_VERSION = "2.0"  # of the document that it writes
# Of the manifests that it reads: the rule is `sepvit_edge.package.schema`'s.
MANIFEST_VERSION = "2.0"
TASKS = ("classification",)
_VERSION = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
_WORD = re.compile("[a-z][a-z0-9-]{0,39}")
MANIFEST, LABELS, GOLDEN = "manifest.json", "labels.txt", "golden.safetensors"
# Signal-to-noise ratio that the logits must reach against those in the package: between what right
# devices were seen to reach and what wrong ones leave. The apps ask for the same
# (tests/vectors/minimum_sqnr.json).
# fp32: sums in another order leave 129 dB and more, 108 on images unlike those of the training; who
# computes in float16 without saying so leaves 60 at most.
# fp16: 45 to 60, since some hundred operations of 11 bits follow each other; pixels that are one
# level off leave 38.
# int8: an activation that is rounded the other way moves others behind it, until 24 to 38 are left,
# about what quantisation itself costs; a layer that is missing leaves 19, BGR for RGB 14.
MINIMUM_SQNR_DB = {"fp32": 80.0, "fp16": 40.0, "int8": 20.0}
# bfloat16 has 8 bits, and a CPU without it computes in float32 instead: both are right.
BFLOAT16_SQNR_DB = 30.0
STABLE = 0.02  # warm-up ends when the medians of two pieces differ by less
PIECE = 10  # runs of such a piece
WARMUP_RUNS, WARMUP_S = 200, 30.0
WARMUP_OPERATIONS = 5
GROWTH_S = 120.0  # growth_runs ends here on slow devices
SUSTAINED_PIECE_S = 5.0
COOLING_S = 900.0
SILENCE_S = 30.0  # an attended runner that hears nothing for so long ends


Call = Callable[[Any], Any]


class Refusal(Exception):
    """What was asked for cannot be done; the sentence says why."""


# --- telling what happens ---------------------------------------------------------------------


class Teller:
    """Writes progress and results: lines of JSON for a program, or text for people."""

    def __init__(self, stream: bool) -> None:
        self.stream = stream

    def _line(self, **event: object) -> None:
        print(json.dumps(event, allow_nan=False), flush=True)

    def progress(self, text: str) -> None:
        """Say what is being done."""
        if self.stream:
            self._line(progress=text)
        else:
            print(f"runner: {text}", file=sys.stderr, flush=True)

    def point(self, point: dict) -> None:
        """One point of the sustained run, so that it is kept if the device goes away."""
        if self.stream:
            self._line(point=point)

    def document(self, document: dict, final: bool) -> None:
        """The document so far, or the finished one."""
        if self.stream:
            self._line(document=document)
        elif final:
            print(json.dumps(document, indent=2, allow_nan=False), flush=True)


_child: subprocess.Popen | None = None


def leave_when_alone() -> None:
    """End this process when standard input ends or falls silent: nobody waits for the result.

    Whoever started the runner sends a byte every few seconds. A network that breaks without a word
    would otherwise leave it running.
    """
    heard = [time.monotonic()]

    def listen() -> None:
        try:
            while os.read(0, 64):
                heard[0] = time.monotonic()
        except OSError:
            pass
        leave()

    def watch() -> None:
        while time.monotonic() - heard[0] < SILENCE_S:
            time.sleep(1)
        leave()

    def leave() -> None:
        if _child is not None:
            _child.kill()
        os._exit(3)

    for function in (listen, watch):
        threading.Thread(target=function, daemon=True).start()


# --- the package ------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict:
    """Check a package as `sepvit_edge.package` does, and return its manifest."""
    try:
        data = (folder / MANIFEST).read_bytes()
        manifest = json.loads(data)
        check_version(manifest, folder)
    except FileNotFoundError:
        raise Refusal(f"{folder} is not a package: {MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise Refusal(
            f"{folder / MANIFEST} is damaged: it is not a manifest; export again"
        ) from None
    zeroed = re.sub(rb'"digest": "[0-9a-f]{64}"', b'"digest": "' + b"0" * 64 + b'"', data, count=1)
    if hashlib.sha256(zeroed).hexdigest() != manifest.get("digest"):
        raise Refusal(f"{folder / MANIFEST} was changed since it was exported; export again")
    task = manifest.get("task")
    if task not in TASKS:
        raise Refusal(
            f"{folder} is for the task {str(task)[:40]!r}, which this runner does not run "
            f"(it runs {', '.join(TASKS)}); update sepvit-edge"
        )
    for file in manifest["files"]:
        path = folder / file["path"]
        if folder.resolve() not in path.resolve().parents:
            raise Refusal(f"{folder} names the file {file['path']!r}, which leaves the folder")
        if not path.is_file():
            raise Refusal(f"{folder} is incomplete: {file['path']} is missing; copy it again")
        if path.stat().st_size != file["size"] or sha256(path) != file["sha256"]:
            raise Refusal(f"{path} was changed since it was exported; export or copy it again")
    return manifest


def check_version(manifest: dict, folder: Path) -> None:
    """Refuse a manifest of another major version; ValueError if it states no version."""
    stated = manifest["schema_version"]
    if isinstance(stated, int) and not isinstance(stated, bool) and stated == 1:
        stated = "1"
    elif not isinstance(stated, str) or not _VERSION.fullmatch(stated):
        raise ValueError(stated)
    major, own = int(stated.split(".")[0]), int(MANIFEST_VERSION.split(".")[0])
    if major > own:
        raise Refusal(
            f"{folder} has manifest version {stated}, this runner reads {MANIFEST_VERSION}; "
            "update sepvit-edge"
        )
    if major < own:
        words = ["python -m sepvit_edge.export"]
        target, precision = manifest.get("target"), manifest.get("precision")
        if isinstance(target, str) and _WORD.fullmatch(target):
            words.append(f"--target {target}")
        if precision in tuple(MINIMUM_SQNR_DB):
            words.append(f"--precision {precision}")
        raise Refusal(
            f"{folder} has manifest version {stated}, which is no longer read; make the package "
            f"again: {' '.join([*words, '--weights CHECKPOINT'])}"
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def read_safetensors(path: Path) -> dict:
    """Read a safetensors file: 8 bytes length of the header, JSON header, data."""
    types = {"U8": np.uint8, "F32": np.float32}
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = np.frombuffer(data[start:end], types[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def as_input(pixels: np.ndarray, facts: dict) -> np.ndarray:
    """Bring uint8 (B, H, W, 3) pixels into the layout and dtype that the manifest states."""
    if facts["layout"] == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels, dtype=facts["dtype"])


def minimum_sqnr(manifest: dict) -> float:
    """What the golden logits must reach, by the arithmetic that the package asks for."""
    if manifest["runtime"]["options"].get("inference_precision", "f32") != "f32":
        return BFLOAT16_SQNR_DB
    return MINIMUM_SQNR_DB[manifest["precision"]]


# What nobody has seen work on hardware is said in the document.
UNTRIED = "written from the runtime's documentation; no device of this kind has been measured yet"


# --- the runtimes -----------------------------------------------------------------------------
# Each has `load(file) -> call` with `call([arrays]) -> [arrays]`, the settings that the package's
# backend uses, and `operations`, the times that it reports by itself. `caveats` are what its
# figures do not say; `emulated` runtimes' times mean nothing.


class OpenVINO:
    """See sepvit_edge/backends/openvino.py."""

    model = "model.xml"
    caveats: tuple = ()
    emulated = False
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

    def load(self, file: Path) -> Call:
        """Make a program of this file callable."""
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

        for _ in range(WARMUP_OPERATIONS):
            request.infer(arrays)
        before = means()
        whole = observed = 0.0
        for _ in range(runs):
            observed += timed(request.infer, arrays)
            whole += timed(call, arrays)
        # The first runs, taken out of the means again, are slower by far.
        count = WARMUP_OPERATIONS + runs
        items = {
            key: max(now * count - before.get(key, 0.0) * WARMUP_OPERATIONS, 0.0) * 1e6
            for key, now in means().items()
        }
        return operations("OpenVINO's performance counters", runs, whole, items, observed)


def origins(compiled: Any) -> dict:
    """Names of the file's operations for those that OpenVINO made of several and named itself."""
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


class OpenVINONPU(OpenVINO):
    """See sepvit_edge/backends/openvino_npu.py."""

    device = "NPU"
    caveats = (("experience with this device", UNTRIED),)


class ONNXRuntime:
    """See sepvit_edge/backends/onnxruntime.py."""

    model = "model.onnx"
    caveats: tuple = ()
    emulated = False

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
            # or what the provider refuses would run on the CPU without a word
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return self.ort.InferenceSession(str(file), options, providers=[self.execution])

    def load(self, file: Path) -> Call:
        """Make a program of this file callable."""
        session = self._session(file)
        names = [value.name for value in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays)))

    def operations(self, file: Path, call: Call, arrays: list, runs: int) -> dict:
        """Run under the runtime's own profiler."""
        with tempfile.TemporaryDirectory() as scratch:
            session = self._session(file, str(Path(scratch) / "profile"))
            feed = dict(zip([value.name for value in session.get_inputs()], arrays))
            for _ in range(WARMUP_OPERATIONS):
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
            items[key] = items.get(key, 0.0) + event["dur"] * (seen[name] > WARMUP_OPERATIONS)
        return operations("ONNX Runtime's profiler", runs, whole, items, observed)


class QualcommHTP(ONNXRuntime):
    """See sepvit_edge/backends/qualcomm_htp.py; `execution` names an SoC, to load its program.

    Else the provider compiles model.onnx on the device. On x86-64 it emulates, the package's first
    SoC unless another is named.
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
        # A program states both itself.
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
        # or what the provider refuses would run on the CPU without a word
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
            for run in range(WARMUP_OPERATIONS + runs):
                session.run(None, feed)
                whole += timed(call, arrays) * (run >= WARMUP_OPERATIONS)
            del session  # the file is complete then
            items = qnn_cycles(events.read_text(encoding="utf-8"), runs)
        return operations("QNN's profiler, cycles as shares of the whole", runs, whole, items)


def qnn_cycles(text: str, runs: int) -> dict:
    """Microseconds by operation, summed over the last runs of QNN's events (CSV).

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


class ExecuTorch:
    """See sepvit_edge/backends/executorch.py; its own Python runtime makes tensors with torch."""

    model = "model.pte"
    caveats: tuple = ()
    emulated = False

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
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if execution not in (None, "XNNPACK"):
            raise Refusal(f"ExecuTorch's wheel has XNNPACK, not {execution}")
        self.torch, self.runtime = torch, Runtime.get()
        self.execution = "XNNPACK"
        self.config: dict = {}
        self.loaded: list = []
        # One thread pool a process; its size is set while nothing is loaded.
        if threads is not None and threads != portable_lib._threadpool_get_thread_count():
            portable_lib._unsafe_reset_threadpool(threads)

    def load(self, file: Path, keeps_output: bool = True) -> Call:
        """Make a program of this file callable; the next call may overwrite what is not kept."""
        program = self.runtime.load_program(file)
        method = program.load_method("forward")
        self.loaded.append(program)

        def call(arrays: list) -> list:
            inputs = [self.torch.from_numpy(np.require(a, requirements=["C", "W"])) for a in arrays]
            outputs = [output.numpy() for output in method.execute(inputs)]
            return [output.copy() for output in outputs] if keeps_output else outputs

        return call

    def operations(self, file: Path, call: Call, arrays: list, runs: int) -> None:
        """The wheel's runtime is built without the event tracer; see `time_kit`."""
        return None


class RKNNLite:
    """See sepvit_edge/backends/rockchip.py. Written by the library's documentation; never run."""

    caveats: tuple = ()

    def __init__(self, manifest: dict, threads: int | None, execution: str | None) -> None:
        from rknnlite.api import RKNNLite as Library

        self.library = Library
        if execution not in (None, "NPU"):
            raise Refusal(f"a Rockchip package runs on the NPU, not on {execution}")
        self.execution = "NPU"
        self.config: dict = {}
        chips = re.findall(r"rockchip,(rk\d+)", read_text("/proc/device-tree/compatible") or "")
        files = {file["path"] for file in manifest["files"]}
        fitting = [name for name in (f"model-{chip}.rknn" for chip in chips) if name in files]
        if not fitting:
            built = ", ".join(sorted(name for name in files if name.endswith(".rknn")))
            raise Refusal(f"the package has {built}, this board is {chips or 'no Rockchip'}")
        self.model = fitting[0]

    def load(self, file: Path) -> Call:
        """Make a program of this file callable."""
        rknn = self.library()
        if rknn.load_rknn(str(file)) != 0 or rknn.init_runtime() != 0:
            raise Refusal(f"the NPU's runtime cannot load {file.name}")

        def call(arrays: list) -> list:
            outputs = rknn.inference(inputs=arrays, data_format=["nchw"])
            return [np.array(output, np.float32) for output in outputs]

        return call

    def operations(self, file: Path, call: Call, arrays: list, runs: int) -> None:
        """The library prints its times, and returns none."""
        return None


RUNTIMES = {
    "openvino": (OpenVINO, "openvino"),
    "onnxruntime": (ONNXRuntime, "onnxruntime"),
    "executorch": (ExecuTorch, "executorch"),
    "rockchip": (RKNNLite, "rknn-toolkit-lite2"),
    "openvino-npu": (OpenVINONPU, "openvino"),
    "qualcomm-htp": (QualcommHTP, "onnxruntime-qnn"),
}


def open_runtime(manifest: dict, threads: int | None, execution: str | None) -> Any:
    """Import the runtime of a package's target, if its version fits the manifest."""
    target, wanted = manifest["target"], manifest["runtime"]
    if target not in RUNTIMES:
        raise Refusal(
            f"a package for {target} does not run under Python on {platform.system()} "
            f"{platform.machine()}; this runner has {', '.join(sorted(RUNTIMES))}"
        )
    adapter, distribution = RUNTIMES[target]
    requirement = f"{wanted['name']}>={wanted['minimum']},<{wanted['below']}"
    install = f"pip install '{requirement}', or --bootstrap makes an environment for it"
    try:
        installed = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise Refusal(f"{distribution} is not installed on this device: {install}") from None
    if not numbers(wanted["minimum"]) <= numbers(installed) < numbers(wanted["below"]):
        raise Refusal(f"{distribution} {installed} is installed, but the package wants {install}")
    try:
        runtime: Any = adapter(manifest, threads, execution)
    except ImportError as error:
        raise Refusal(
            f"{distribution} {installed} is installed, but cannot be loaded on "
            f"{platform.machine()}: {error}"
        ) from None
    runtime.version = installed
    return runtime


def numbers(version: str) -> list:
    """A version's first three numbers."""
    return [int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3]]


def operations(
    method: str, runs: int, whole_s: float, items: dict, observed_s: float | None = None
) -> dict:
    """Put microseconds by (name, kind, kernel), summed over the runs, into the document's form.

    The whole is timed without the profiler, in turn with the runs under it: those are `observed_s`.
    """
    return {
        "method": method,
        "runs": runs,
        "whole_us": whole_s * 1e6 / runs,
        "observed_us": None if observed_s is None else observed_s * 1e6 / runs,
        "items": [
            {"name": name, "kind": kind, "kernel": kernel, "mean_us": total / runs}
            for (name, kind, kernel), total in items.items()
        ],
    }


# --- the device -------------------------------------------------------------------------------
# MIDR part numbers of Arm's cores (Arm's technical reference manuals).
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
    "0xd82": "Cortex-X4",
}
# Features that decide how fast low precision is, and the atomics that some libraries need.
FEATURES = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimdhp", "asimddp", "i8mm", "bf16", "sve", "atomics"),
)
CPUS = Path("/sys/devices/system/cpu")


def read_text(path: str | Path) -> str | None:
    """Content of a file of /proc or /sys; None where there is none, or it may not be read."""
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None


def read_number(path: str | Path, scale: float = 1) -> float | None:
    """A number that a file of /proc or /sys holds, times `scale`."""
    text = read_text(path)
    try:
        return None if text is None else float(text) * scale
    except ValueError:
        return None


def usable_cores() -> list:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processors() -> list:
    """The entries of /proc/cpuinfo, one a core."""
    text = read_text("/proc/cpuinfo") or ""
    entries = []
    for block in text.split("\n\n"):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        entry = {key.strip(): value.strip() for key, value in pairs}
        if "processor" in entry:
            entries.append(entry)
    return entries


def clusters(entries: list) -> list | None:
    """Cores of one kind: the same part number and the same highest frequency."""
    kinds: dict = {}
    for entry in entries:
        try:
            core = int(entry["processor"])
        except ValueError:
            continue
        part = ARM_PARTS.get(entry.get("CPU part", ""), entry.get("CPU part"))
        top = read_number(CPUS / f"cpu{core}/cpufreq/cpuinfo_max_freq", 1e-3)
        kinds.setdefault((part, top), []).append(core)
    if not kinds:
        return None
    return [{"cores": cores, "part": part, "max_mhz": top} for (part, top), cores in kinds.items()]


def cgroup(name_v2: str, name_v1: str) -> str | None:
    """A limit of this process's control group, or of the container that it is in."""
    for line in (read_text("/proc/self/cgroup") or "").splitlines():
        controllers, path = line.split(":", 2)[1:]
        if not controllers:
            found = read_text(f"/sys/fs/cgroup{path}/{name_v2}")
            if found:
                return found
    return read_text(f"/sys/fs/cgroup/{name_v2}") or read_text(f"/sys/fs/cgroup/{name_v1}")


def describe_device(name: str, missing: Missing) -> dict:
    """What the system tells about the device; the rest is listed as missing."""
    entries = processors()
    first = entries[0] if entries else {}
    flags = (first.get("flags") or first.get("Features") or "").split()
    compatible = read_text("/proc/device-tree/compatible") or ""
    quota = (cgroup("cpu.max", "cpu/cpu.cfs_quota_us") or "max").split()
    period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or 1e5
    if len(quota) > 1:
        period = float(quota[1])
    limited = quota[0] not in ("max", "-1")
    memory_limit = cgroup("memory.max", "memory/memory.limit_in_bytes") or "max"
    memory = re.search(r"MemTotal:\s+(\d+)", read_text("/proc/meminfo") or "")
    memory_mb = int(memory.group(1)) * 1024 / 1e6 if memory else None
    limit_mb = None if memory_limit == "max" else float(memory_limit) / 1e6
    if limit_mb is not None and memory_mb is not None and limit_mb >= memory_mb:
        limit_mb = None  # how the first version of cgroups says "none"
    model = read_text("/proc/device-tree/model") or read_text("/sys/class/dmi/id/product_name")
    if memory_mb is None:
        missing.note("device.memory_mb", "the system has no /proc/meminfo")
    return {
        "name": name,
        "model": model or None,
        "soc": compatible.split("\0")[-1] or None,
        "cpu": first.get("model name") or platform.processor() or None,
        "architecture": platform.machine(),
        "os": platform.system(),
        "os_version": platform.release(),
        "python_version": platform.python_version(),
        "browser": None,
        "logical_cores": len(usable_cores()),
        "clusters": clusters(entries),
        "cpu_features": [flag for flag in FEATURES if flag in flags] if flags else None,
        "memory_mb": memory_mb,
        "cpu_limit_cores": float(quota[0]) / period if limited else None,
        "memory_limit_mb": limit_mb,
        "virtualized": ("hypervisor" in flags) if first.get("flags") else None,
    }


def temperatures() -> dict:
    """Degrees Celsius by sensor."""
    found = {}
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        value = read_number(zone / "temp", 1e-3)
        if value is not None and -40 < value < 150:
            found[read_text(zone / "type") or zone.name] = value
    for sensor in sorted(Path("/sys/class/hwmon").glob("hwmon*/temp*_input")):
        value = read_number(sensor, 1e-3)
        if value is not None and -40 < value < 150:
            chip = read_text(sensor.parent / "name") or sensor.parent.name
            stem = sensor.name[: -len("_input")]
            label = read_text(sensor.with_name(stem + "_label")) or stem
            found[f"{chip} {label}"] = value
    return found


def frequencies() -> list | None:
    """MHz of each core that this process may use."""
    cores = usable_cores()
    values = [read_number(CPUS / f"cpu{core}/cpufreq/scaling_cur_freq", 1e-3) for core in cores]
    if None in values:
        told = {entry["processor"]: entry.get("cpu MHz") for entry in processors()}
        values = [told.get(str(core)) for core in cores]
        values = [None if value is None else float(value) for value in values]
    return None if None in values else values


def throttle_events() -> int | None:
    """Intel's counters of thermal throttling, summed over the cores in use."""
    counts = [
        read_number(CPUS / f"cpu{core}/thermal_throttle/core_throttle_count")
        for core in usable_cores()
    ]
    known = [count for count in counts if count is not None]
    return int(sum(known)) if len(known) == len(counts) else None


def thermal_state() -> str | None:
    """What a Raspberry Pi's firmware says (get_throttled, its documented bits)."""
    text = read_text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    if text is None:
        return None
    bits = int(text, 16)
    names = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
    return ", ".join(name for bit, name in enumerate(names) if bits >> bit & 1) or "nominal"


def conditions() -> dict:
    """State of the device now."""
    governors = {read_text(CPUS / f"cpu{c}/cpufreq/scaling_governor") for c in usable_cores()}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    charge = sorted(Path("/sys/class/power_supply").glob("BAT*/capacity"))
    status = read_text(charge[0].parent / "status") if charge else None
    return {
        "frequencies_mhz": frequencies(),
        "governors": sorted(governors - {None}) or None,
        "temperatures_c": temperatures() or None,
        "thermal_state": thermal_state(),
        "throttle_events": throttle_events(),
        "load_average": load,
        "battery_percent": read_number(charge[0]) if charge else None,
        "charging": status != "Discharging" if status else None,
        "low_power_mode": None,
    }


class Missing:
    """What is not in the document, with the reasons."""

    REASONS = (
        ("frequencies_mhz", "the system shows no CPU frequency"),
        ("governors", "the system has no cpufreq, so no governor"),
        ("temperatures_c", "the system shows no temperature sensor"),
        ("throttle_events", "the processor has no throttling counter that the system shows"),
    )

    def __init__(self) -> None:
        self.items: list = []

    def note(self, what: str, reason: str) -> None:
        """Add one thing."""
        self.items.append({"what": what, "reason": reason})

    def note_conditions(self, state: dict) -> None:
        """Add what the system does not show of its state."""
        for name, reason in self.REASONS:
            if state[name] is None:
                self.note(f"before.{name}", reason)


def wait_until_cool(limit: float, tell: Teller) -> None:
    """Wait until the hottest sensor is below a limit."""
    if not temperatures():
        raise Refusal("this device shows no temperature; leave --max-start-temp out")
    deadline = time.monotonic() + COOLING_S
    while (hottest := max(temperatures().values())) > limit:
        if time.monotonic() > deadline:
            raise Refusal(f"the device stayed at {hottest:.0f} C; the start limit is {limit:.0f} C")
        tell.progress(f"cooling down: {hottest:.0f} C, starting at {limit:.0f} C")
        time.sleep(5)


class EnergyMeter:
    """Energy since the last reading, from RAPL's counters or a power sensor."""

    def __init__(self) -> None:
        self.reason = "the system shows no energy counter and no power sensor"
        self.counters, self.sensor, self.source = [], None, ""
        for zone in sorted(Path("/sys/class/powercap").glob("intel-rapl:?")):
            if read_number(zone / "energy_uj") is not None:
                self.counters.append(zone)
            else:
                self.reason = "only root may read RAPL's counters (energy_uj)"
        sensors = sorted(Path("/sys/class/hwmon").glob("hwmon*/power1_input"))
        if self.counters:
            self.source = "RAPL, the processor's packages"
        elif sensors:
            self.sensor = sensors[0]
            self.source = f"power sensor {read_text(self.sensor.parent / 'name')}"
        self.watts: list = []
        self.last: list = []
        self.start_s = 0.0

    @property
    def available(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.source)

    def start(self) -> None:
        """Count from now on."""
        self.start_s, self.watts = time.perf_counter(), []
        self.last = [read_number(zone / "energy_uj") or 0.0 for zone in self.counters]

    def sample(self) -> None:
        """Look at a power sensor between two runs; RAPL's counters need no looking."""
        watts = read_number(self.sensor, 1e-6) if self.sensor else None
        if watts is not None:
            self.watts.append(watts)

    def mean_watts(self) -> float | None:
        """Mean power since `start`."""
        passed = time.perf_counter() - self.start_s
        if self.counters:
            joules = 0.0
            for zone, before in zip(self.counters, self.last):
                spent = (read_number(zone / "energy_uj") or 0.0) - before
                if spent < 0:
                    spent += read_number(zone / "max_energy_range_uj") or 0.0
                joules += spent * 1e-6
            return joules / passed
        self.sample()
        return sum(self.watts) / len(self.watts) if self.watts else None


def resident_mb() -> float | None:
    """Resident memory of this process now."""
    pages = (read_text("/proc/self/statm") or "").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if len(pages) > 1 else None


def peak_mb() -> tuple:
    """Highest resident memory of this process, and where the number comes from."""
    found = re.search(r"VmHWM:\s+(\d+)", read_text("/proc/self/status") or "")
    if found:
        return int(found.group(1)) * 1024 / 1e6, "VmHWM"
    try:
        import resource
    except ImportError:  # Windows
        return None, "none"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, "ru_maxrss"


def clock_resolution_ns() -> float:
    """Smallest step that the clock was seen to make."""
    steps = []
    for _ in range(1000):
        start = now = time.perf_counter_ns()
        while now == start:
            now = time.perf_counter_ns()
        steps.append(now - start)
    return float(min(steps))


# --- measuring --------------------------------------------------------------------------------


def distribution(seconds: list) -> dict:
    """Put times into the document's form."""
    runs_ms = np.asarray(seconds) * 1e3
    p50, p90, p99 = (float(p) for p in np.percentile(runs_ms, [50, 90, 99]))
    return {
        "runs": len(runs_ms),
        "min_ms": float(runs_ms.min()),
        "mean_ms": float(runs_ms.mean()),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "max_ms": float(runs_ms.max()),
        "runs_ms": [float(value) for value in runs_ms],
    }


def timed(call: Call, argument: Any) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call(argument)
    return time.perf_counter() - start


def warm_up(call: Call, arrays: list, limit: int) -> tuple:
    """Run until the medians of two pieces agree; returns the runs and whether they did."""
    times: list = []
    start = time.perf_counter()
    while len(times) < limit and time.perf_counter() - start < WARMUP_S:
        times.append(timed(call, arrays))
        if len(times) >= 2 * PIECE and len(times) % PIECE == 0:
            before, now = np.median(times[-2 * PIECE : -PIECE]), np.median(times[-PIECE:])
            if abs(now - before) <= STABLE * before:
                return len(times), True
    return len(times), False


def sustain(
    call: Call, arrays: list, seconds: float, meter: EnergyMeter, tell: Teller, points: list
) -> None:
    """Run without a pause; a point every few seconds."""
    start = time.perf_counter()
    piece = min(SUSTAINED_PIECE_S, max(seconds / 20, 0.1))
    while (passed := time.perf_counter() - start) < seconds:
        tell.progress(f"sustained run: {passed:.0f} of {seconds:.0f} s")
        meter.start()
        times: list = []
        end = time.perf_counter() + min(piece, seconds - passed)
        while not times or time.perf_counter() < end:
            times.append(timed(call, arrays))
        runs_ms = np.asarray(times) * 1e3
        heat, speed = temperatures(), frequencies()
        point = {
            "time_s": time.perf_counter() - start,
            "runs": len(times),
            "p50_ms": float(np.percentile(runs_ms, 50)),
            "p90_ms": float(np.percentile(runs_ms, 90)),
            "max_ms": float(runs_ms.max()),
            "frequency_mhz": sum(speed) / len(speed) if speed else None,
            "temperature_c": max(heat.values()) if heat else None,
            "thermal_state": thermal_state(),
            "throttle_events": throttle_events(),
            "power_w": meter.mean_watts() if meter.available else None,
        }
        points.append(point)
        tell.point(point)


def measure_bandwidth(threads: int) -> tuple:
    """STREAM's add, c = a + b, on arrays beyond any cache; the best of five."""
    memory = re.search(r"MemAvailable:\s+(\d+)", read_text("/proc/meminfo") or "")
    available = int(memory.group(1)) * 1024 if memory else 1 << 30
    size = min(64 << 20, available // 12) // 8 // threads * threads
    a, b, c = np.ones(size), np.ones(size), np.zeros(size)
    slices = [slice(i * size // threads, (i + 1) * size // threads) for i in range(threads)]

    def add(part: slice) -> None:
        np.add(a[part], b[part], out=c[part])  # numpy lets other threads run meanwhile

    best = math.inf
    for _ in range(6):
        workers = [threading.Thread(target=add, args=(part,)) for part in slices]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = min(best, time.perf_counter() - start)
    method = f"STREAM add of {3 * size * 8 / 1e6:.0f} MB, {threads} threads, best of 6"
    return 3 * size * 8 / best / 1e9, method


def zeros_for(inputs: list) -> list:
    """Arrays of the shapes and dtypes that a program takes."""
    return [np.zeros(entry["shape"], entry["dtype"]) for entry in inputs]


def time_kit(runtime: Any, kit: Path, call: Call, arrays: list, runs: int) -> tuple:
    """Time what the host lowered beside the package: a chain of products, and parts of the model.

    Each part is run twice and timed the second time, as the whole is: at their first runs the parts
    of an int8 SepViT-Lite add up to 125 % of it on one thread.

    Returns
    -------
    roof, operations : dict or None
        Rate of the products; the parts with the whole beside them.
    """
    content = json.loads((kit / "kit.json").read_text())
    roof = parts = None
    if content["gemm"]:
        gemm = content["gemm"]
        chain, inputs = runtime.load(kit / gemm["file"]), zeros_for(gemm["inputs"])
        for _ in range(3):
            chain(inputs)
        seconds = float(np.median([timed(chain, inputs) for _ in range(runs)]))
        roof = {"gmacs_per_s": gemm["macs"] / seconds / 1e9, "gmacs_method": gemm["method"]}
    if content["parts"]:
        calls = [
            (
                part["name"],
                part["kind"],
                runtime.load(kit / part["file"], keeps_output=False),
                zeros_for(part["inputs"]),
            )
            for part in content["parts"]
        ]
        wholes: list = []
        times: dict = {}
        for _ in range(runs):
            call(arrays)
            wholes.append(timed(call, arrays))
            for name, kind, part, inputs in calls:
                part(inputs)
                times.setdefault((name, kind, "alone"), []).append(timed(part, inputs))
        # Medians: the first runs are slower by far.
        items = {key: float(np.median(each)) * 1e6 * runs for key, each in times.items()}
        whole = float(np.median(wholes)) * runs
        parts = operations(content["parts_method"], runs, whole, items)
    return roof, parts


def preprocessing(golden: dict, manifest: dict, runs: int) -> tuple:
    """Resize by the package's rule with Pillow, where it is installed.

    Returns
    -------
    identical : bool
        Whether every golden image gave the golden pixels.
    times : dict
        Distribution for ``image.2``.
    """
    from PIL import Image

    facts = manifest["input"]
    size, shorter = facts["crop_size"], facts["resize_shorter_side"]

    def prepare(image: Any) -> np.ndarray:
        width, height = image.size
        scaled = (
            (shorter, height * shorter // width)
            if width <= height
            else (width * shorter // height, shorter)
        )
        # Rows, then columns: Pillow 13 may change the order when it is given both.
        for axis in ((scaled[0], height), scaled):
            if axis != image.size:
                image = image.resize(axis, Image.Resampling.BILINEAR)
        left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        return np.array(image.crop((left, top, left + size, top + size)))

    images = [Image.fromarray(golden[f"image.{i}"]) for i in range(len(golden["pixels"]))]
    made = [prepare(image.convert("RGB")) for image in images]
    identical = all(np.array_equal(a, b) for a, b in zip(made, golden["pixels"]))
    photograph = images[2].convert("RGB")
    return identical, distribution([timed(prepare, photograph) for _ in range(runs + 3)][3:])


# --- phases in processes of their own ---------------------------------------------------------


def run_phase(options: argparse.Namespace, name: str, timeout_s: float) -> dict:
    """Run this file again for one phase, and return what it says."""
    global _child
    command = [*options.python, str(Path(__file__).resolve()), str(options.package)]
    command += ["--phase", name, "--started-ns", str(time.monotonic_ns())]
    for option in ("threads", "execution", "cores"):
        value = getattr(options, option)
        if value is not None:
            value = ",".join(map(str, value)) if option == "cores" else value
            command += [f"--{option}", str(value)]
    _child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = _child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise Refusal(f"the {name} phase took longer than {timeout_s:.0f} s") from None
    finally:
        _child.kill()
        status, _child = _child.wait(), None
    lines = [line for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
    if status == 0 and lines:
        return json.loads(lines[-1])
    said = err.decode(errors="replace").strip().splitlines()
    sentence = said[-1] if said else "it said nothing"
    if status == 2:
        raise Refusal(sentence.replace("runner: ", "", 1))
    how = f"signal {-status}" if status < 0 else f"status {status}"
    if status == -4:  # SIGILL
        sentence = "the runtime uses instructions that this processor lacks"
    raise Refusal(f"the {name} phase ended with {how}: {sentence}")


def golden_phase(options: argparse.Namespace) -> dict:
    """Run the golden vectors and compare the logits with those in the package."""
    manifest = json.loads((options.package / MANIFEST).read_bytes())
    golden = read_safetensors(options.package / GOLDEN)
    runtime = open_runtime(manifest, options.threads, options.execution)
    return check_golden(manifest, golden, runtime.load(options.package / runtime.model))


def check_golden(manifest: dict, golden: dict, call: Call) -> dict:
    """Compare the logits of some call for the golden pixels with those in the package."""
    pixels, batch = golden["pixels"], manifest["input"]["shape"][0]
    pieces = []
    for start in range(0, len(pixels), batch):
        piece = np.zeros((batch, *pixels.shape[1:]), np.uint8)
        piece[: len(pixels) - start] = pixels[start : start + batch]
        pieces.append(call([as_input(piece, manifest["input"])])[0])
    logits = np.concatenate(pieces)[: len(pixels)].astype(np.float64)
    # A package that nothing could run where it was exported has the reference's logits only.
    wanted = golden.get("package_logits", golden["reference_logits"]).astype(np.float64)
    noise, signal = float(((logits - wanted) ** 2).sum()), float((wanted**2).sum())
    finite = bool(np.isfinite(logits).all())
    identical = finite and noise == 0
    # A number that JSON has: logits that are not finite are as far away as can be.
    ratio = 10 * math.log10(signal / noise) if finite and noise > 0 and signal > 0 else -999.0
    minimum = minimum_sqnr(manifest)
    return {
        "images": len(pixels),
        "sqnr_db": None if identical else ratio,
        "minimum_sqnr_db": minimum,
        "max_abs_error": float(np.abs(logits - wanted).max()) if finite else sys.float_info.max,
        "top1_agreement": float((logits.argmax(1) == wanted.argmax(1)).mean()),
        "preprocessing_identical": None,
        "passed": identical or ratio >= minimum,
    }


def start_phase(options: argparse.Namespace) -> dict:
    """Answer once, and tell when, counted from the moment before this process was made."""
    manifest = json.loads((options.package / MANIFEST).read_bytes())
    facts = manifest["input"]
    runtime = open_runtime(manifest, options.threads, options.execution)
    imported = time.monotonic_ns()
    call = runtime.load(options.package / runtime.model)
    loaded = time.monotonic_ns()
    call([np.zeros(facts["shape"], facts["dtype"])])
    answered = time.monotonic_ns()
    return {
        "total_ms": (answered - options.started_ns) / 1e6,
        "import_ms": (imported - options.started_ns) / 1e6,
        "load_ms": (loaded - imported) / 1e6,
        "first_run_ms": (answered - loaded) / 1e6,
    }


def drop_file_cache(folder: Path) -> bool:
    """Ask the system to forget the package's files, so that the next start reads the disk."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def cold_start(options: argparse.Namespace) -> dict:
    """Start processes and take the medians."""
    starts = []
    for _ in range(options.starts):
        dropped = drop_file_cache(options.package)
        starts.append(run_phase(options, "start", options.phase_timeout))
    medians = {name: float(np.median([start[name] for start in starts])) for name in starts[0]}
    return {"starts": len(starts), **medians, "file_cache": "dropped" if dropped else "warm"}


# --- the whole --------------------------------------------------------------------------------


def profile(options: argparse.Namespace, tell: Teller) -> int:
    """Measure everything that was asked for, and tell the document."""
    tell.progress("checking the files")
    manifest = read_manifest(options.package)
    if options.cores is not None:
        try:
            os.sched_setaffinity(0, options.cores)
        except (AttributeError, OSError) as error:
            raise Refusal(f"cannot bind to the cores {options.cores}: {error}") from None
    missing = Missing()
    model = manifest["model"]
    own = (LABELS, GOLDEN)
    size = sum(file["size"] for file in manifest["files"] if file["path"] not in own)
    document: dict = {
        "schema_version": PROFILE_VERSION,
        "complete": False,
        "incomplete_reason": "the run did not end",
        "emulated": options.emulated,
        "producer": {"name": "runner", "version": VERSION},
        "package": {
            "digest": manifest["digest"],
            "variant": model["variant"],
            "target": manifest["target"],
            "precision": manifest["precision"],
            "image_size": model["image_size"],
            "num_classes": model["num_classes"],
            "batch": manifest["input"]["shape"][0],
            "model_mb": size / 1e6,
            "macs": model["macs"],
        },
        "runtime": {
            "name": manifest["runtime"]["name"],
            "version": "unknown",
            "execution": options.execution or "CPU",
            "threads": options.threads,
            "settings": {},
        },
        "device": describe_device(options.device_name, missing),
        "not_measured": missing.items,
    }

    tell.progress("running the golden vectors")
    golden = document["golden"] = run_phase(options, "golden", options.phase_timeout)
    tensors = read_safetensors(options.package / GOLDEN)
    try:
        identical, times = preprocessing(tensors, manifest, 50)
        golden["preprocessing_identical"], document["preprocessing"] = identical, times
        golden["passed"] = golden["passed"] and identical
    except ImportError:
        missing.note("preprocessing", "Pillow is not installed on the device")
    del tensors
    if not golden["passed"]:
        document["incomplete_reason"] = golden_sentence(golden)
        document.pop("preprocessing", None)
        tell.document(document, final=True)
        print(f"runner: {document['incomplete_reason']}", file=sys.stderr)
        return 1
    tell.document(document, final=False)

    if options.max_start_temp is not None:
        wait_until_cool(options.max_start_temp, tell)
    if options.starts:
        tell.progress("cold starts")
        document["cold_start"] = cold_start(options)
    else:
        missing.note("cold_start", "not asked for")

    baseline = resident_mb()
    runtime = open_runtime(manifest, options.threads, options.execution)
    # What the host was not told: this runtime emulates its device.
    options.emulated = document["emulated"] = options.emulated or runtime.emulated
    call = runtime.load(options.package / runtime.model)
    memory: dict = {"baseline_mb": baseline, "loaded_mb": resident_mb()}
    document["runtime"].update(
        version=runtime.version, execution=runtime.execution, settings=runtime.config
    )
    for what, reason in runtime.caveats:
        missing.note(what, reason)
    facts = manifest["input"]
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, facts["shape"]).astype(facts["dtype"])]

    tell.progress("warming up")
    document["before"] = conditions()
    missing.note_conditions(document["before"])
    # No warm-up makes an emulator's times mean something.
    warmed, stable = warm_up(call, arrays, 1 if options.emulated else WARMUP_RUNS)
    document["method"] = {
        "clock": f"{time.get_clock_info('perf_counter').implementation}",
        "clock_resolution_ns": clock_resolution_ns(),
        "warmup_runs": warmed,
        "warmup_stable": stable,
        "cores": options.cores,
        "start_temperature_limit_c": options.max_start_temp,
    }
    meter = EnergyMeter()
    idle = None
    if meter.available:
        meter.start()
        time.sleep(2)
        idle = meter.mean_watts()
    else:
        missing.note("energy", meter.reason)

    tell.progress("timing")
    seconds: list = []
    meter.start()
    start = time.perf_counter()
    looked = start
    while len(seconds) < options.runs or time.perf_counter() - start < options.seconds:
        seconds.append(timed(call, arrays))
        if meter.sensor and time.perf_counter() - looked > 0.5:
            meter.sample()
            looked = time.perf_counter()
    watts = meter.mean_watts() if meter.available else None
    if watts is not None:
        passed = time.perf_counter() - start
        document["energy"] = {
            "source": meter.source,
            "per_run_mj": watts * passed / len(seconds) * 1e3,
            "mean_w": watts,
            "idle_w": idle,
        }
    document["latency"] = distribution(seconds)
    document["after"] = conditions()
    memory["peak_mb"], source = peak_mb()
    memory = document["memory"] = {"source": source, **memory, "steady_mb": resident_mb()}
    if baseline is None:
        missing.note("memory.steady_mb", "the system has no /proc/self/statm")
    tell.document(document, final=False)

    if options.growth_runs and memory["steady_mb"] is not None:
        tell.progress("watching memory")
        end, done = time.perf_counter() + GROWTH_S, 0
        while done < options.growth_runs and time.perf_counter() < end:
            call(arrays)
            done += 1
        memory["growth_runs"], memory["growth_mb"] = (
            done,
            (resident_mb() or 0) - memory["steady_mb"],
        )
    if options.operations:
        tell.progress("timing operations")
        document["operations"] = runtime.operations(
            options.package / runtime.model, call, arrays, options.operations
        )
    measure_roofs(options, runtime, call, arrays, document, missing, tell)
    tell.document(document, final=False)

    if options.sustained:
        points: list = []
        document["sustained"] = {"requested_s": options.sustained, "points": points}
        sustain(call, arrays, options.sustained, meter, tell, points)
    else:
        missing.note("sustained", "not asked for")
    document.update(complete=True, incomplete_reason=None)
    tell.document(document, final=True)
    return 0


def measure_roofs(
    options: argparse.Namespace,
    runtime: Any,
    call: Call,
    arrays: list,
    document: dict,
    missing: Missing,
    tell: Teller,
) -> None:
    """Measure the machine's limits, and the parts of the model where the host sent them."""
    if not options.roofs:
        missing.note("roofs", "not asked for")
        return
    tell.progress("measuring the machine's roofs")
    bandwidth, how = measure_bandwidth(options.threads or len(usable_cores()))
    roofs = {"bandwidth_gb_per_s": bandwidth, "bandwidth_method": how}
    if options.kit:
        roof, parts = time_kit(runtime, options.kit, call, arrays, options.operations or 20)
        roofs.update(roof or {})
        document["operations"] = parts or document.get("operations")
    if "gmacs_per_s" not in roofs:
        missing.note("roofs.gmacs_per_s", "no chain of matrix products was sent with the package")
    if not document.get("operations"):
        missing.note("operations", "this runtime has no profiler, and no parts were sent with it")
    document["roofs"] = roofs


def golden_sentence(golden: dict) -> str:
    """Say what differs."""
    if golden["preprocessing_identical"] is False:
        return "Pillow on this device resizes to other pixels than the golden ones; not timed"
    return (
        f"the golden vectors give other logits here: {golden['sqnr_db']:.1f} dB, at least "
        f"{golden['minimum_sqnr_db']:.0f} dB are needed; not timed"
    )


def core_list(text: str) -> list:
    """Core numbers from `0,2-3`."""
    cores: list = []
    for piece in text.split(","):
        low, _, high = piece.partition("-")
        cores += range(int(low), int(high or low) + 1)
    return cores


def parse(arguments: list | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("package", type=Path, help="the package's folder")
    add("--threads", type=int, help="of the runtime; its own choice unless given")
    add("--execution", help="OpenVINO's device or ONNX Runtime's execution provider")
    add("--cores", type=core_list, help="bind the process to these, for example 4-7")
    add("--device-name", default="local", help="what the document calls this device")
    add("--emulated", action="store_true", help="mark every time as meaningless")
    add("--runs", type=int, default=50, help="timed runs, at least")
    add("--seconds", type=float, default=10, help="of timed runs, at least")
    add("--starts", type=int, default=3, help="cold starts")
    add("--growth-runs", type=int, default=1000, help="runs over which memory is watched")
    add("--operations", type=int, default=0, metavar="RUNS", help="time single operations")
    add("--roofs", action="store_true", help="measure bandwidth, and the rate of --kit's products")
    add("--kit", type=Path, help="a folder of programs that the host lowered for this package")
    add("--sustained", type=float, default=0, metavar="S", help="length of the sustained run")
    add("--max-start-temp", type=float, metavar="C", help="cool down to this first")
    add("--phase-timeout", type=float, default=300, help="seconds that one phase may take")
    add("--stream", action="store_true", help="write lines of JSON as the work goes on")
    add("--attended", action="store_true", help="end when standard input ends or falls silent")
    add("--python", type=shlex.split, default=[sys.executable], help="command of the phases")
    add("--phase", choices=("golden", "start"), help=argparse.SUPPRESS)
    add("--started-ns", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    """Run as a command."""
    options = parse()
    try:
        if options.phase:
            if options.cores is not None:
                os.sched_setaffinity(0, options.cores)
            phase = golden_phase if options.phase == "golden" else start_phase
            print(json.dumps(phase(options), allow_nan=False))
            return 0
        if options.attended:
            leave_when_alone()
        return profile(options, Teller(options.stream))
    except Refusal as refusal:
        print(f"runner: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    # What native libraries print must not get between the lines of JSON.
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    status = main()
    # Runtimes' threads may still wait for work: leave without asking them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
