"""The profile document: one measurement of one package on one device.

The runner on a computer, the Android and iOS apps and the web page all write this document; its
JSON Schemas are export/profile-*.schema.json. Conventions that all of them keep:

- A field's name ends in its unit: ``_ms``, ``_s``, ``_mb`` (10^6 bytes), ``_mhz``, ``_c`` (degrees
  Celsius), ``_db``, ``_mj`` (millijoule), ``_gb_per_s``.
- What the system does not tell is null, and is listed in `not_measured` with the reason. Nothing
  is guessed.
- Percentiles are linear interpolations between the sorted runs (NumPy's default): with n runs, the
  p-th is at position (n - 1) p / 100.
- Times come from a monotonic clock. No run is left out as an outlier.
- No host names, serial numbers or paths.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError, model_validator

from ..config.recipe import Precision
from ..config.toml import Strict, first_fault
from ..errors import SepViTError
from ..package.schema import published_schema, standing, version_pattern

SCHEMA_VERSION = "2.4"
_DIGEST = "^[0-9a-f]{64}$"
# Sections that hold times, or rates.
_TIMED = [
    "cold_start",
    "latency",
    "interference",
    "preprocessing",
    "energy",
    "sustained",
    "operations",
    "roofs",
    "attribution",
    "steps",
]


class Facts(Strict):
    """A section of the document; numbers are finite, since JSON has no others."""

    model_config = ConfigDict(allow_inf_nan=False)


class Producer(Facts):
    """The program that wrote the document.

    Attributes
    ----------
    name : str
        ``"runner"`` (`sepvit_edge.profiling.runner`), the app, or ``"executor-runner"``: the
        host, from the output of ExecuTorch's program of that name.
    version : str
        Version of the program.
    """

    name: Literal["runner", "executor-runner", "android-app", "ios-app", "web-app"]
    version: str


class ProfiledPackage(Facts):
    """The package that was measured; its manifest says everything else.

    Attributes
    ----------
    digest : str
        The manifest's own digest.
    variant, target, precision, image_size, num_classes : str, str, str, int, int
        As in the manifest.
    batch : int
        Images a call; every latency here is of one call, but where `steps` are.
    model_mb : float
        Model files on disk, without labels and golden vectors.
    macs : int
        Multiply-accumulates of one image.
    """

    digest: str = Field(pattern=_DIGEST)
    variant: str
    target: str
    precision: Precision
    image_size: int = Field(gt=0)
    num_classes: int = Field(gt=0)
    batch: int = Field(gt=0)
    model_mb: float = Field(ge=0)
    macs: int = Field(ge=0)


class RuntimeUsed(Facts):
    """The runtime as it ran.

    Attributes
    ----------
    name, version : str
        Name and version of its library.
    execution : str
        Device or execution provider: ``"CPU"``, ``"XNNPACK"``, ``"CPUExecutionProvider"``,
        ``"NPU"``, ``"wasm"``, ``"webgpu"``, ``"all"`` (Core ML's compute units) ...
    threads : int or None
        Number that was set; None where the runtime does not take one.
    settings : dict
        Other settings of the runtime, as text.
    """

    name: str
    version: str
    execution: str
    threads: int | None = Field(default=None, gt=0)
    settings: dict[str, str] = Field(default_factory=dict)


class CoreCluster(Facts):
    """Cores of one kind (big.LITTLE).

    Attributes
    ----------
    cores : list of int
        Numbers of the cores, as in the system's affinity masks.
    part : str or None
        The core's name or part number.
    max_mhz : float or None
        Highest frequency.
    """

    cores: list[int]
    part: str | None = None
    max_mhz: float | None = Field(default=None, gt=0)


class Device(Facts):
    """The device, as far as its system tells.

    Attributes
    ----------
    name : str
        The device's name in profiles/, or the model's name where an app wrote the document.
    model, soc, cpu : str or None
        Product, system on chip, and CPU as the system names them.
    architecture : str or None
        ``"x86_64"``, ``"aarch64"``, ``"arm64"`` ...
    os, os_version : str or None
        ``"Linux"``, ``"Android"``, ``"iOS"`` ..., and its release.
    python_version, browser : str or None
        Versions; None where the device has none.
    logical_cores : int or None
        Number of cores that the process may use.
    clusters : list of CoreCluster or None
        Topology.
    cpu_features : list of str or None
        Features that decide how fast low precision is, by the system's names.
    memory_mb : float or None
        Physical memory.
    cpu_limit_cores, memory_limit_mb : float or None
        Limits of the container (cgroup); None where there is none.
    virtualized : bool or None
        Whether a hypervisor shares the processor with others.
    """

    name: str
    model: str | None = None
    soc: str | None = None
    cpu: str | None = None
    architecture: str | None = None
    os: str | None = None
    os_version: str | None = None
    python_version: str | None = None
    browser: str | None = None
    logical_cores: int | None = Field(default=None, gt=0)
    clusters: list[CoreCluster] | None = None
    cpu_features: list[str] | None = None
    memory_mb: float | None = Field(default=None, gt=0)
    cpu_limit_cores: float | None = Field(default=None, gt=0)
    memory_limit_mb: float | None = Field(default=None, gt=0)
    virtualized: bool | None = None


class Golden(Facts):
    """The check before the timing: the package's golden vectors, run on this device.

    Attributes
    ----------
    images : int
        Number of images.
    sqnr_db : float or None
        SQNR of the logits against golden.safetensors' ``package_logits``; None if identical
        (the ratio is infinite).
    minimum_sqnr_db : float
        Least SQNR that was accepted.
    max_abs_error : float
        Largest error of a logit.
    top1_agreement : float
        Share of the images with the same class, 0..1.
    preprocessing_identical : bool or None
        Whether resizing the golden images gave the golden pixels, byte for byte; None where the
        device does not resize.
    passed : bool
        Whether timing was allowed.
    """

    images: int = Field(gt=0)
    sqnr_db: float | None
    minimum_sqnr_db: float
    max_abs_error: float = Field(ge=0)
    top1_agreement: float = Field(ge=0, le=1)
    preprocessing_identical: bool | None = None
    passed: bool


class Method(Facts):
    """The method of timing.

    Attributes
    ----------
    clock : str
        Name of the monotonic clock.
    clock_resolution_ns : float or None
        Smallest difference seen between two readings.
    warmup_runs : int
        Runs before the timed ones.
    warmup_stable : bool
        Whether the warm-up ended because times had become stable, and not at its limit.
    cores : list of int or None
        Cores that the process was bound to; None where it was not bound.
    start_temperature_limit_c : float or None
        Temperature that the device had to cool down to before the start; None for no limit.
    """

    clock: str
    clock_resolution_ns: float | None = Field(default=None, ge=0)
    warmup_runs: int = Field(ge=0)
    warmup_stable: bool
    cores: list[int] | None = None
    start_temperature_limit_c: float | None = None


class Conditions(Facts):
    """State of the device at one moment.

    Attributes
    ----------
    frequencies_mhz : list of float or None
        Frequency of each core that the process may use.
    governors : list of str or None
        CPU frequency governors in use.
    temperatures_c : dict or None
        By sensor.
    thermal_state : str or None
        The phone's name for its state: ``"nominal"``, ``"fair"``, ``"serious"``, ``"critical"``
        (iOS), ``"none"`` ... ``"shutdown"`` (Android).
    throttle_events : int or None
        Number of events since the processor was switched on.
    load_average : float or None
        Average of the last minute.
    battery_percent : float or None
        Charge.
    charging, low_power_mode : bool or None
        State of the power supply.
    """

    frequencies_mhz: list[float] | None = None
    governors: list[str] | None = None
    temperatures_c: dict[str, float] | None = None
    thermal_state: str | None = None
    throttle_events: int | None = Field(default=None, ge=0)
    load_average: float | None = Field(default=None, ge=0)
    battery_percent: float | None = Field(default=None, ge=0, le=100)
    charging: bool | None = None
    low_power_mode: bool | None = None


class Interference(Facts):
    """What other processes took from the cores while the calls were timed.

    Attributes
    ----------
    seconds : float
        Time over which this was counted.
    cores : int
        Number of cores that the process may use.
    others_s : float
        CPU time of everything but the measuring process on these cores.
    stolen_s : float or None
        Time that the hypervisor gave to other machines.
    """

    seconds: float = Field(gt=0)
    cores: int = Field(gt=0)
    others_s: float = Field(ge=0)
    stolen_s: float | None = Field(default=None, ge=0)

    @property
    def others(self) -> float:
        """Mean number of other processes that ran."""
        return self.others_s / self.seconds


class Doubt(Facts):
    """A reason why times are not trustworthy.

    Attributes
    ----------
    cause : str
        One word for programs; `sepvit_edge.profiling.judge` has those in use.
    sentence : str
        The reason with its figures, for people.
    """

    cause: str
    sentence: str


class Trust(Facts):
    """Whether the times are a measurement; made by the host (`sepvit_edge.profiling.judge`).

    Attributes
    ----------
    trustworthy : bool
        Whether there is no doubt.
    doubts : list of Doubt
        Reasons against it.
    """

    trustworthy: bool
    doubts: list[Doubt] = Field(default_factory=list)

    @model_validator(mode="after")
    def _reasoned(self) -> Trust:
        if self.trustworthy == bool(self.doubts):
            raise ValueError("doubts are stated exactly where trustworthy is false")
        return self

    @property
    def because(self) -> str:
        """All reasons in one line; empty if there is none."""
        return "; ".join(doubt.sentence for doubt in self.doubts)


class ColdStart(Facts):
    """From the start of a process to its first answer; medians over several starts.

    Attributes
    ----------
    starts : int
        Number of starts.
    total_ms : float
        Start of the process to the first logits.
    import_ms : float or None
        Start of the process until the runtime is loaded; None for apps, where it is part of them.
    load_ms : float
        Opening and compiling the model.
    first_run_ms : float
        The first call.
    file_cache : str
        ``"dropped"`` if the model was read from the disk, ``"warm"`` if the system had it in
        memory, ``"unknown"``.
    """

    starts: int = Field(gt=0)
    total_ms: float = Field(ge=0)
    import_ms: float | None = Field(default=None, ge=0)
    load_ms: float = Field(ge=0)
    first_run_ms: float = Field(ge=0)
    file_cache: Literal["dropped", "warm", "unknown"]


class Latency(Facts):
    """Distribution of the times of one call; see the conventions above.

    Attributes
    ----------
    runs : int
        Number of timed runs.
    min_ms, mean_ms, p50_ms, p90_ms, p99_ms, max_ms : float
        Statistics over all runs.
    runs_ms : list of float
        Times of all runs in their order.
    """

    runs: int = Field(gt=0)
    min_ms: float = Field(ge=0)
    mean_ms: float = Field(ge=0)
    p50_ms: float = Field(ge=0)
    p90_ms: float = Field(ge=0)
    p99_ms: float = Field(ge=0)
    max_ms: float = Field(ge=0)
    runs_ms: list[float]

    @model_validator(mode="after")
    def _consistent(self) -> Latency:
        ordered = [self.min_ms, self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms]
        if ordered != sorted(ordered):
            raise ValueError("min, p50, p90, p99 and max are not in order")
        if self.runs != len(self.runs_ms):
            raise ValueError(f"runs is {self.runs}, but runs_ms has {len(self.runs_ms)} values")
        return self


class Instructions(Facts):
    """Instructions of one call, on an emulated device whose clock counts them.

    An instruction is not a cycle: counts of two packages compare their work, not their times.

    Attributes
    ----------
    runs : int
        Number of counted runs.
    min, p50, max : int
        Statistics over all runs.
    counts : list of int
        Instructions of all runs in their order, with the little that the system did between them.
    """

    runs: int = Field(gt=0)
    min: int = Field(gt=0)
    p50: int = Field(gt=0)
    max: int = Field(gt=0)
    counts: list[int]

    @model_validator(mode="after")
    def _consistent(self) -> Instructions:
        if not self.min <= self.p50 <= self.max:
            raise ValueError("min, p50 and max are not in order")
        if self.runs != len(self.counts):
            raise ValueError(f"runs is {self.runs}, but counts has {len(self.counts)} values")
        return self


class Memory(Facts):
    """Resident memory of the measuring process.

    Attributes
    ----------
    source : str
        Source of the numbers, for example ``"VmHWM"`` or ``"phys_footprint"``.
    baseline_mb : float or None
        Before the runtime is loaded.
    loaded_mb : float or None
        With the model loaded, before its first run.
    steady_mb : float or None
        After the timed runs.
    peak_mb : float or None
        Highest until then; `budgets` are held against it.
    growth_mb : float or None
        Growth of steady memory over `growth_runs` more runs, which shows leaks.
    growth_runs : int or None
        Number of these runs; 1,000 by default.
    """

    source: str
    baseline_mb: float | None = Field(default=None, ge=0)
    loaded_mb: float | None = Field(default=None, ge=0)
    steady_mb: float | None = Field(default=None, ge=0)
    peak_mb: float | None = Field(default=None, ge=0)
    growth_mb: float | None = None
    growth_runs: int | None = Field(default=None, gt=0)


class Energy(Facts):
    """Energy over the timed runs.

    Attributes
    ----------
    source : str
        Counter or sensor, and what it covers (the package, the board, the phone).
    per_run_mj : float
        Total divided by the runs; idle power is not subtracted.
    mean_w : float
        Mean power while running.
    idle_w : float or None
        Power before the runs.
    """

    source: str
    per_run_mj: float = Field(ge=0)
    mean_w: float = Field(ge=0)
    idle_w: float | None = Field(default=None, ge=0)


class SustainedPoint(Facts):
    """A few seconds of a sustained run.

    Attributes
    ----------
    time_s : float
        Since the start of the sustained run, at the end of this piece.
    runs : int
        Number of runs within the piece.
    p50_ms, p90_ms, max_ms : float
        Statistics of these runs.
    frequency_mhz : float or None
        Mean over the cores in use.
    temperature_c : float or None
        The hottest sensor.
    thermal_state : str or None
        The same as in `Conditions`.
    throttle_events : int or None
        The same as in `Conditions`.
    power_w : float or None
        Mean over the piece.
    """

    time_s: float = Field(gt=0)
    runs: int = Field(gt=0)
    p50_ms: float = Field(ge=0)
    p90_ms: float = Field(ge=0)
    max_ms: float = Field(ge=0)
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    thermal_state: str | None = None
    throttle_events: int | None = Field(default=None, ge=0)
    power_w: float | None = Field(default=None, ge=0)


class Sustained(Facts):
    """Calls back to back for a long time.

    Attributes
    ----------
    requested_s : float
        Requested length; the run was cut if the points end before.
    points : list of SustainedPoint
        In order of time.
    """

    requested_s: float = Field(gt=0)
    points: list[SustainedPoint]


class Operation(Facts):
    """Time of one operation, as its runtime reports it; see `backends.interface.OpTiming`."""

    name: str
    kind: str
    kernel: str
    mean_us: float = Field(ge=0)


class Operations(Facts):
    """Times of operations, taken in separate runs since a profiler costs time.

    Attributes
    ----------
    method : str
        Method of measuring, in one sentence.
    runs : int
        Number of runs that each mean is over.
    whole_us : float or None
        Mean time of a whole run without the profiler, in turn with these.
    observed_us : float or None
        Mean time of a whole run under the profiler, of which the items are parts; None where each
        item was timed alone.
    items : list of Operation
        In order of execution.
    """

    method: str
    runs: int = Field(gt=0)
    whole_us: float | None = Field(default=None, ge=0)
    observed_us: float | None = Field(default=None, gt=0)
    items: list[Operation]


class Roofs(Facts):
    """The machine's limits, measured on it with the same threads.

    Attributes
    ----------
    gmacs_per_s : float or None
        10^9 multiply-accumulates a second of matrix products.
    gmacs_method : str or None
        Products and library that were used.
    bandwidth_gb_per_s : float or None
        10^9 bytes a second between cores and memory.
    bandwidth_method : str or None
        Traffic that was used.
    """

    gmacs_per_s: float | None = Field(default=None, gt=0)
    gmacs_method: str | None = None
    bandwidth_gb_per_s: float | None = Field(default=None, gt=0)
    bandwidth_method: str | None = None


class AttributedPart(Facts):
    """One part of the network (`sepvit_edge.model.graph.part_of`).

    Attributes
    ----------
    part : str
        ``"stages.2.blocks.4.psa"``, ``"stages.0.patch_embedding"``, ``"head"`` ...
    time_us : float
        Sum of its operations.
    operations : int
        Number of operations.
    macs : int
        Multiply-accumulates of one run (all images of the batch).
    moved_mb : float
        Weights, and activations that enter and leave the part, each once: what a perfect fusion
        would still move.
    """

    part: str
    time_us: float = Field(ge=0)
    operations: int = Field(ge=0)
    macs: int = Field(ge=0)
    moved_mb: float = Field(ge=0)


class Attribution(Facts):
    """Time by part of the network; made by the host from `operations`, never by an app.

    Attributes
    ----------
    method : str
        Method of measuring the operations.
    whole_us : float
        Time of a whole run, with which the parts are compared.
    unattributed_us : float
        Whole minus all parts: operations that belong to no part, and the time between operations.
        Negative where the parts, taken alone, took longer.
    inserted_us : float or None
        Of it, operations that belong to no part: copies and changes of layout between two parts.
    between_us : float or None
        Of it, time in which no operation ran: scheduling, starting threads, taking inputs and
        giving outputs. None where the runs were not observed as a whole.
    profiler_share : float or None
        Share by which the profiler made runs longer; the parts' times are without it.
    parts : list of AttributedPart
        In order of execution.
    """

    method: str
    whole_us: float = Field(gt=0)
    unattributed_us: float
    inserted_us: float | None = Field(default=None, ge=0)
    between_us: float | None = None
    profiler_share: float | None = None
    parts: list[AttributedPart]

    @property
    def obtained(self) -> str:
        """The method, and the profiler's own cost."""
        if self.profiler_share is None:
            return self.method
        return f"{self.method}; the profiler's own time ({self.profiler_share:+.0%}) is taken out"


class Step(Facts):
    """One step of an image through a package of several graphs.

    Attributes
    ----------
    name : str
        ``"first stage"``, a graph of the manifest, or a rule between graphs.
    where : str
        ``"graph"`` for the runtime's work, ``"host"`` for that of a rule, in NumPy.
    calls : int
        Calls of the graph for this image; 1 for a rule.
    p50_ms : float
        Median of the time of all of them.
    """

    name: str
    where: Literal["graph", "host"]
    calls: int = Field(ge=0)
    p50_ms: float = Field(ge=0)


class Steps(Facts):
    """An image through a package of several graphs; `latency` is then of the whole image.

    Attributes
    ----------
    image : str
        The image: a tensor of the golden vectors.
    regions, objects : int
        Regions that the box head looked at, and objects with a mask: what the time depends on.
    items : list of Step
        In order of execution.
    """

    image: str
    regions: int = Field(ge=0)
    objects: int = Field(ge=0)
    items: list[Step]


class NotMeasured(Facts):
    """Something that the document lacks, with the reason.

    Attributes
    ----------
    what : str
        Path of the field, for example ``"energy"`` or ``"device.memory_mb"``.
    reason : str
        One sentence.
    """

    what: str
    reason: str


class Profile(Facts):
    """One measurement: one package, one device, one number of threads.

    Attributes
    ----------
    schema_version : str
        ``"major.minor"``; see `sepvit_edge.package.schema`.
    complete : bool
        Whether everything that was asked for is here.
    incomplete_reason : str or None
        Reason why it is not complete.
    emulated : bool
        Whether the device was emulated: its numerics count, its times mean nothing and never enter
        a table of results.
    date : datetime or None
        When the computer started the measurement, or read an app's document; in UTC, to the second.
        All documents of one command have the same.
    trust : Trust or None
        Judgement on the times; None where there are none, or they mean nothing.
    latency : Latency or None
        Latency of warm calls; None where the document is incomplete, or `instructions` is here.
        Of a package of several graphs, whose `steps` are here, of a whole image.
    instructions : Instructions or None
        Counts in place of times: a document that has them has no time at all.
    preprocessing : Latency or None
        Time of resizing one image (``image.2`` of the golden vectors, 320 x 240) and cropping it,
        without the model and without decoding.
    """

    schema_version: str = Field(pattern=version_pattern(SCHEMA_VERSION))
    complete: bool
    incomplete_reason: str | None = None
    emulated: bool = False
    date: AwareDatetime | None = None
    producer: Producer
    package: ProfiledPackage
    runtime: RuntimeUsed
    device: Device
    golden: Golden | None = None
    method: Method | None = None
    before: Conditions | None = None
    after: Conditions | None = None
    cold_start: ColdStart | None = None
    latency: Latency | None = None
    instructions: Instructions | None = None
    interference: Interference | None = None
    trust: Trust | None = None
    preprocessing: Latency | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    sustained: Sustained | None = None
    operations: Operations | None = None
    roofs: Roofs | None = None
    attribution: Attribution | None = None
    steps: Steps | None = None
    not_measured: list[NotMeasured] = Field(default_factory=list)

    @property
    def title(self) -> str:
        """Name of the measurement within a device: ``lite 224 openvino fp32, 2 threads``."""
        package, threads = self.package, self.runtime.threads
        count = "default threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"
        batch = f" batch {package.batch}" if package.batch > 1 else ""
        what = f"{package.variant} {package.image_size}{batch} {package.target} {package.precision}"
        return f"{what}, {count}"

    @model_validator(mode="after")
    def _honest(self) -> Profile:
        if self.complete == (self.incomplete_reason is not None):
            raise ValueError("incomplete_reason is stated exactly where complete is false")
        measured = self.latency or self.instructions
        if self.complete and (measured is None or self.golden is None):
            raise ValueError("a complete profile has the golden check and the latency")
        if measured is not None and (self.golden is None or not self.golden.passed):
            raise ValueError("a device whose golden check did not pass must not be timed")
        if self.instructions is not None:
            timed = [name for name in _TIMED if getattr(self, name) is not None]
            if timed or not self.emulated:
                raise ValueError(
                    "a profile with instructions is of an emulated device and has no times"
                    + "".join(f": {name}" for name in timed[:1])
                )
        return self


def read_profile(document: object, where: str) -> Profile:
    """Check a document that came from elsewhere.

    Version 1 had the same fields, and is read as well.

    Parameters
    ----------
    document : object
        The parsed JSON.
    where : str
        Where it came from, for the message.

    Raises
    ------
    SepViTError
        If it is not a profile document, or of a version that is not supported.
    """
    if not isinstance(document, dict) or "schema_version" not in document:
        raise SepViTError(f"the document from {where} is not a profile document")
    stated = document["schema_version"]
    match standing(stated, SCHEMA_VERSION):
        case "none":
            raise SepViTError(
                f"the document from {where} is not a profile document: its schema_version is not "
                "a version"
            )
        case "newer":
            raise SepViTError(
                f"the document from {where} has version {stated}, this version of sepvit-edge "
                f"reads {SCHEMA_VERSION}; update sepvit-edge"
            )
        case "older":
            document = document | {"schema_version": SCHEMA_VERSION}
    try:
        # As JSON, which has lists where the document's classes have tuples.
        return Profile.model_validate_json(json.dumps(document), extra="ignore")
    except RecursionError:
        raise SepViTError(f"the document from {where} is not valid: it is too deep") from None
    except ValidationError as error:
        raise SepViTError(f"the document from {where} is not valid: {first_fault(error)}") from None


def profile_schema() -> dict[str, Any]:
    """Return the JSON Schema of the profile document."""
    return published_schema(Profile)


if __name__ == "__main__":
    json.dump(profile_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
