"""Devices: facts, connection and budgets of each, as TOML (folder profiles/)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..config.toml import Strict, TomlFiles, shipped_folder


class Hardware(Strict):
    """Facts from the maker's data sheet.

    Attributes
    ----------
    soc, cpu, npu : str
        System on chip, cores with their frequencies, accelerator; empty where there is none.
    memory_mb : float or None
        Memory of the board, in 10^6 bytes.
    features : list of str
        Features of its cores for low precision, and those that are missing.
    source : str
        Source of these facts.
    """

    soc: str = ""
    cpu: str = ""
    npu: str = ""
    memory_mb: float | None = Field(default=None, gt=0)
    features: list[str] = Field(default_factory=list)
    source: str = ""


class LocalConnection(Strict):
    """The machine that this runs on, or an emulator that runs here.

    Attributes
    ----------
    python : list of str
        Command that runs Python. Default: the running one. ``~`` is the home folder.
    """

    kind: Literal["local"]
    python: list[str] = Field(default_factory=list)


class _Remote(Strict):
    """A Linux host on which Python runs.

    Attributes
    ----------
    python : str
        Interpreter that makes the environment, and that runs the runner without one.
    folder : str
        Folder in the home folder for packages, runner and environments.
    timeout_s : float
        Time limit for connecting, and for every short command.
    """

    python: str = "python3"
    folder: str = ".cache/sepvit-edge"
    timeout_s: float = Field(default=20, gt=0)


class SSHConnection(_Remote):
    """A board that is reached by SSH.

    Attributes
    ----------
    host, port, user : str, int or None, str or None
        The same as in ~/.ssh/config, which is read too.
    key, known_hosts : str or None
        Files. Default: OpenSSH's own places.
    """

    kind: Literal["ssh"]
    host: str
    port: int | None = None
    user: str | None = None
    key: str | None = None
    known_hosts: str | None = None


class LabgridConnection(_Remote):
    """A place of a labgrid laboratory; it is acquired, used over its SSH driver, and released.

    Attributes
    ----------
    place : str
        Name of the place, which has a NetworkService.
    coordinator : str or None
        Address. Default: labgrid's own rule (LG_COORDINATOR).
    key : str or None
        Private key for the board.
    """

    kind: Literal["labgrid"]
    place: str
    coordinator: str | None = None
    key: str | None = None


class ADBConnection(Strict):
    """An Android device with this project's app (apps/android).

    Attributes
    ----------
    serial : str or None
        Serial number; needed where several devices are attached.
    server_host, server_port : str, int
        The adb server.
    app, activity : str
        The application, and its activity.
    action, outputs_action : str
        The intents' actions that start the benchmark, and that run images of the computer.
    timeout_s : float
        Time limit for a short command.
    run_timeout_s : float
        Time limit for the benchmark, without the sustained run's length, and for one piece of the
        images.
    """

    kind: Literal["adb"]
    serial: str | None = None
    server_host: str = "127.0.0.1"
    server_port: int = 5037
    app: str = "sepvit.edge.app"
    activity: str = ".MainActivity"
    action: str = "sepvit.edge.action.BENCHMARK"
    outputs_action: str = "sepvit.edge.action.OUTPUTS"
    timeout_s: float = Field(default=20, gt=0)
    run_timeout_s: float = Field(default=600, gt=0)


class AppFileConnection(Strict):
    """A document that an app exported; its file is given with ``--app-file``."""

    kind: Literal["app-file"]


Connection = Annotated[
    LocalConnection | SSHConnection | LabgridConnection | ADBConnection | AppFileConnection,
    Field(discriminator="kind"),
]


class Measuring(Strict):
    """Default settings of a device's measurements; the command line overrides them.

    Attributes
    ----------
    targets : list of str
        Runtimes that are useful on the device.
    threads : list of int
        Numbers of threads, a measurement each.
    cores : str or None
        Cores to bind to, as in ``"4-7"``.
    execution : str or None
        OpenVINO's device, or ONNX Runtime's execution provider.
    max_start_temp_c : float or None
        Temperature that the device cools down to before each measurement.
    runs, seconds, starts, growth_runs : int, float, int, int
        Least number of timed runs and their least duration, number of cold starts, runs over
        which memory is watched.
    """

    targets: list[str] = Field(default_factory=list)
    threads: list[Annotated[int, Field(gt=0)]] = Field(default_factory=list)
    cores: str | None = Field(default=None, pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")
    execution: str | None = None
    max_start_temp_c: float | None = None
    runs: int = Field(default=50, gt=0)
    seconds: float = Field(default=10, ge=0)
    starts: int = Field(default=3, ge=0)
    growth_runs: int = Field(default=1000, ge=0)


class Budgets(Strict):
    """Highest figures that a package may have on the device; exit status 1 if one is exceeded.

    Attributes
    ----------
    p50_ms, p90_ms : float or None
        Latency of a warm call.
    peak_mb : float or None
        Highest resident memory.
    model_mb : float or None
        Model files on disk.
    """

    p50_ms: float | None = Field(default=None, gt=0)
    p90_ms: float | None = Field(default=None, gt=0)
    peak_mb: float | None = Field(default=None, gt=0)
    model_mb: float | None = Field(default=None, gt=0)


class DeviceFile(Strict):
    """One TOML file in profiles/.

    Attributes
    ----------
    description : str
        One line for people.
    emulated : bool
        Whether times on it mean nothing.
    clock : str
        ``"instructions"`` where its clock counts them, one a nanosecond; only of an emulated
        device.
    hardware, connection, measuring, budgets
        Sections.
    notes : list of str
        Known traps.
    """

    description: str
    emulated: bool = False
    clock: Literal["time", "instructions"] = "time"
    hardware: Hardware = Hardware()
    connection: Connection
    measuring: Measuring = Measuring()
    budgets: Budgets = Budgets()
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _counted(self) -> DeviceFile:
        if self.clock == "instructions" and (not self.emulated or self.measuring.starts > 0):
            raise ValueError('a device with clock = "instructions" is emulated, and starts = 0')
        return self


DEVICES = TomlFiles("device", DeviceFile, shipped_folder("profiles", "profiles"))


def devices() -> dict[str, Path]:
    """Return the devices that ship with the package, by name."""
    return DEVICES.shipped()


def load_device(name_or_file: str | Path) -> tuple[str, DeviceFile]:
    """Read a device by name, or from a file.

    Returns
    -------
    name : str
        The file's name without its ending.
    device : DeviceFile
        Its content.

    Raises
    ------
    SepViTError
        If it does not exist or is not valid; the line and the key are named.
    """
    return DEVICES.find(name_or_file).stem, DEVICES.load(name_or_file)
