"""Facts of the device that do not change while it is measured."""

from __future__ import annotations

import platform
import re

from ... import machine
from .document import Missing

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
FEATURES = (*machine.X86_FEATURES, *machine.ARM_FEATURES)


def describe_device(name: str, missing: Missing) -> dict:
    """Return what the system tells about the device; the rest is added to `missing`."""
    entries = machine.processors()
    first = entries[0] if entries else {}
    flags = machine.cpu_flags()
    compatible = machine.read_text("/proc/device-tree/compatible") or ""
    product = "/sys/class/dmi/id/product_name"
    model = machine.read_text("/proc/device-tree/model") or machine.read_text(product)
    memory_mb = physical_memory_mb()
    if memory_mb is None:
        missing.note("device.memory_mb", "the system has no /proc/meminfo")
    return {
        "name": name,
        "model": model or None,
        "soc": compatible.split("\0")[-1] or None,
        "cpu": machine.cpu_name() or None,
        "architecture": platform.machine(),
        "os": platform.system(),
        "os_version": platform.release(),
        "python_version": platform.python_version(),
        "browser": None,
        "logical_cores": len(machine.usable_cores()),
        "clusters": clusters(entries),
        "cpu_features": [flag for flag in FEATURES if flag in flags] if flags else None,
        "memory_mb": memory_mb,
        "cpu_limit_cores": cpu_limit_cores(),
        "memory_limit_mb": memory_limit_mb(memory_mb),
        "virtualized": ("hypervisor" in flags) if first.get("flags") else None,
    }


def physical_memory_mb() -> float | None:
    """Return the machine's memory in 10^6 bytes."""
    memory = re.search(r"MemTotal:\s+(\d+)", machine.read_text("/proc/meminfo") or "")
    return int(memory.group(1)) * 1024 / 1e6 if memory else None


def clusters(entries: list) -> list | None:
    """Group cores of one kind: the same part number and the same highest frequency."""
    kinds: dict = {}
    for entry in entries:
        try:
            core = int(entry["processor"])
        except ValueError:
            continue
        part = ARM_PARTS.get(entry.get("CPU part", ""), entry.get("CPU part"))
        file = f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq"
        kinds.setdefault((part, machine.read_number(file, 1e-3)), []).append(core)
    if not kinds:
        return None
    return [{"cores": cores, "part": part, "max_mhz": top} for (part, top), cores in kinds.items()]


def cpu_limit_cores() -> float | None:
    """Return the CPU time that the container may use, in cores; None without a limit."""
    quota = (cgroup("cpu.max", "cpu/cpu.cfs_quota_us") or "max").split()
    if quota[0] in ("max", "-1"):
        return None
    if len(quota) > 1:
        return float(quota[0]) / float(quota[1])
    period = machine.read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or 1e5
    return float(quota[0]) / period


def memory_limit_mb(memory_mb: float | None) -> float | None:
    """Return the memory that the container may use, in 10^6 bytes; None without a limit."""
    limit = cgroup("memory.max", "memory/memory.limit_in_bytes") or "max"
    if limit == "max":
        return None
    limit_mb = float(limit) / 1e6
    if memory_mb is not None and limit_mb >= memory_mb:
        return None  # how the first version of cgroups says "none"
    return limit_mb


def cgroup(name_v2: str, name_v1: str) -> str | None:
    """Read a limit of this process's control group, or of the container that it is in."""
    for line in (machine.read_text("/proc/self/cgroup") or "").splitlines():
        controllers, path = line.split(":", 2)[1:]
        if not controllers:
            found = machine.read_text(f"/sys/fs/cgroup{path}/{name_v2}")
            if found:
                return found
    version_2 = machine.read_text(f"/sys/fs/cgroup/{name_v2}")
    return version_2 or machine.read_text(f"/sys/fs/cgroup/{name_v1}")
