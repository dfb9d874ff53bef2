"""State of the device that changes while it is measured: frequency, temperature, throttling."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ... import machine
from .errors import Refusal
from .output import Output

CPUS = Path("/sys/devices/system/cpu")
COOLING_S = 900.0  # longest wait for a device to cool down
LOWEST_C, HIGHEST_C = -40, 150  # a sensor that says something else is not connected
# What is None in the conditions, and why.
REASONS = (
    ("frequencies_mhz", "the system shows no CPU frequency"),
    ("governors", "the system has no cpufreq, so no governor"),
    ("temperatures_c", "the system shows no temperature sensor"),
    ("throttle_events", "the processor has no throttling counter that the system shows"),
)


def conditions() -> dict:
    """Return the state of the device now: section ``before`` or ``after`` of the document."""
    cores = machine.usable_cores()
    governors = {machine.read_text(CPUS / f"cpu{c}/cpufreq/scaling_governor") for c in cores}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    charge = sorted(Path("/sys/class/power_supply").glob("BAT*/capacity"))
    status = machine.read_text(charge[0].parent / "status") if charge else None
    return {
        "frequencies_mhz": frequencies(),
        "governors": sorted(governors - {None}) or None,
        "temperatures_c": temperatures() or None,
        "thermal_state": thermal_state(),
        "throttle_events": throttle_events(),
        "load_average": load,
        "battery_percent": machine.read_number(charge[0]) if charge else None,
        "charging": status != "Discharging" if status else None,
        "low_power_mode": None,
    }


def temperatures() -> dict:
    """Return degrees Celsius by sensor."""
    found = {}
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        value = machine.read_number(zone / "temp", 1e-3)
        if value is not None and LOWEST_C < value < HIGHEST_C:
            found[machine.read_text(zone / "type") or zone.name] = value
    for sensor in sorted(Path("/sys/class/hwmon").glob("hwmon*/temp*_input")):
        value = machine.read_number(sensor, 1e-3)
        if value is not None and LOWEST_C < value < HIGHEST_C:
            chip = machine.read_text(sensor.parent / "name") or sensor.parent.name
            stem = sensor.name[: -len("_input")]
            label = machine.read_text(sensor.with_name(stem + "_label")) or stem
            found[f"{chip} {label}"] = value
    return found


def frequencies() -> list | None:
    """Return MHz of each core that this process may use; None if one is not told."""
    cores = machine.usable_cores()
    files = [CPUS / f"cpu{core}/cpufreq/scaling_cur_freq" for core in cores]
    values = [machine.read_number(file, 1e-3) for file in files]
    if None in values:
        told = {entry["processor"]: entry.get("cpu MHz") for entry in machine.processors()}
        texts = [told.get(str(core)) for core in cores]
        values = [None if text is None else float(text) for text in texts]
    return None if None in values else values


def throttle_events() -> int | None:
    """Return Intel's counters of thermal throttling, summed over the cores in use."""
    counts = [
        machine.read_number(CPUS / f"cpu{core}/thermal_throttle/core_throttle_count")
        for core in machine.usable_cores()
    ]
    known = [count for count in counts if count is not None]
    return int(sum(known)) if len(known) == len(counts) else None


def thermal_state() -> str | None:
    """Return what a Raspberry Pi's firmware says (get_throttled, its documented bits)."""
    text = machine.read_text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    if text is None:
        return None
    bits = int(text, 16)
    names = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
    return ", ".join(name for bit, name in enumerate(names) if bits >> bit & 1) or "nominal"


def wait_until_cool(limit: float, output: Output) -> None:
    """Wait until the hottest sensor is below a limit in degrees Celsius."""
    if not temperatures():
        raise Refusal("this device shows no temperature; leave --max-start-temp out")
    deadline = time.monotonic() + COOLING_S
    while (hottest := max(temperatures().values())) > limit:
        if time.monotonic() > deadline:
            raise Refusal(f"the device stayed at {hottest:.0f} C; the start limit is {limit:.0f} C")
        output.progress(f"cooling down: {hottest:.0f} C, starting at {limit:.0f} C")
        time.sleep(5)
