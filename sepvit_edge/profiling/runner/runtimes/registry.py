"""The table of runtimes that this runner knows, and the check of the installed version."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re

from ..errors import Refusal
from .interface import Runtime

# Target: module and class here, and the distribution that has to be installed.
RUNTIMES = {
    "openvino": ("openvino", "OpenVINO", "openvino"),
    "onnxruntime": ("onnxruntime", "ONNXRuntime", "onnxruntime"),
    "executorch": ("executorch", "ExecuTorch", "executorch"),
    "litert": ("litert", "LiteRT", "ai-edge-litert"),
    "rockchip": ("rockchip", "RKNNLite", "rknn-toolkit-lite2"),
    "openvino-npu": ("openvino", "OpenVINONPU", "openvino"),
    "qualcomm-htp": ("qualcomm_htp", "QualcommHTP", "onnxruntime-qnn"),
}


def open_runtime(manifest: dict, threads: int | None, execution: str | None) -> Runtime:
    """Import the runtime of a package's target, if its version fits the manifest."""
    target, wanted = manifest["target"], manifest["runtime"]
    if target not in RUNTIMES:
        raise Refusal(
            f"a package for {target} does not run under Python on {platform.system()} "
            f"{platform.machine()}; this runner has {', '.join(sorted(RUNTIMES))}"
        )
    module, name, distribution = RUNTIMES[target]
    requirement = f"{wanted['name']}>={wanted['minimum']},<{wanted['below']}"
    install = f"pip install '{requirement}', or --bootstrap makes an environment for it"
    try:
        installed = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise Refusal(f"{distribution} is not installed on this device: {install}") from None
    if not numbers(wanted["minimum"]) <= numbers(installed) < numbers(wanted["below"]):
        raise Refusal(f"{distribution} {installed} is installed, but the package wants {install}")
    kind = getattr(importlib.import_module(f".{module}", __package__), name)
    try:
        runtime: Runtime = kind(manifest, threads, execution)
    except ImportError as error:
        raise Refusal(
            f"{distribution} {installed} is installed, but cannot be loaded on "
            f"{platform.machine()}: {error}"
        ) from None
    runtime.version = installed
    return runtime


def numbers(version: str) -> list:
    """Return a version's first three numbers."""
    return [int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3]]
