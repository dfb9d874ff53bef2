"""Energy of the device, from RAPL's counters or a power sensor."""

from __future__ import annotations

import time
from pathlib import Path

from ... import machine


class EnergyMeter:
    """Mean power since the last start.

    Attributes
    ----------
    source : str
        The counter or sensor; empty where there is none.
    reason : str
        Why there is none.
    sensor : Path or None
        A power sensor, which has to be read again and again.
    """

    def __init__(self) -> None:
        self.reason = "the system shows no energy counter and no power sensor"
        self.counters, self.sensor, self.source = [], None, ""
        for zone in sorted(Path("/sys/class/powercap").glob("intel-rapl:?")):
            if machine.read_number(zone / "energy_uj") is not None:
                self.counters.append(zone)
            else:
                self.reason = "only root may read RAPL's counters (energy_uj)"
        sensors = sorted(Path("/sys/class/hwmon").glob("hwmon*/power1_input"))
        if self.counters:
            self.source = "RAPL, the processor's packages"
        elif sensors:
            self.sensor = sensors[0]
            self.source = f"power sensor {machine.read_text(self.sensor.parent / 'name')}"
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
        self.last = [machine.read_number(zone / "energy_uj") or 0.0 for zone in self.counters]

    def sample(self) -> None:
        """Read a power sensor between two runs; RAPL's counters add up by themselves."""
        watts = machine.read_number(self.sensor, 1e-6) if self.sensor else None
        if watts is not None:
            self.watts.append(watts)

    def mean_watts(self) -> float | None:
        """Return the mean power since `start`; None without a source."""
        if not self.available:
            return None
        passed = time.perf_counter() - self.start_s
        if self.counters:
            joules = 0.0
            for zone, before in zip(self.counters, self.last):
                spent = (machine.read_number(zone / "energy_uj") or 0.0) - before
                if spent < 0:
                    spent += machine.read_number(zone / "max_energy_range_uj") or 0.0
                joules += spent * 1e-6
            return joules / passed
        self.sample()
        return sum(self.watts) / len(self.watts) if self.watts else None
