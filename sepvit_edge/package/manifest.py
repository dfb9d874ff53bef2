"""The schema of manifest.json; `folder.py` reads and writes it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..config.recipe import Precision, Recipe
from ..config.toml import Strict
from ..model.variants import Source

if TYPE_CHECKING:
    pass


SCHEMA_VERSION = 1
MANIFEST, LABELS, GOLDEN = "manifest.json", "labels.txt", "golden.safetensors"


class ModelFacts(Strict):
    """What the network is.

    Attributes
    ----------
    variant, name : str
        Key and published name.
    num_classes, image_size, parameters, macs : int
        MACs of one image.
    """

    variant: str
    name: str
    num_classes: int
    image_size: int
    parameters: int
    macs: int


class InputFacts(Strict):
    """What the model takes, and how an image becomes it.

    Attributes
    ----------
    name, shape, dtype, layout : str, list of int, str, str
        Of the tensor.
    color_order : str
        Always RGB.
    value_range : tuple of int
        Of a pixel, whatever the dtype.
    resize_rule, resize_shorter_side, crop_size
        Pillow's antialiased BILINEAR on the shorter side, then the centre square.
    mean, std : tuple of float
        Per channel, for pixels scaled to 0..1.
    inside_graph : list of str
        Which steps the graph does itself; the caller does the others.
    """

    name: str
    shape: list[int]
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    color_order: Literal["RGB"] = "RGB"
    value_range: tuple[int, int] = (0, 255)
    resize_rule: Literal["pillow-bilinear-antialias"] = "pillow-bilinear-antialias"
    resize_shorter_side: int
    crop_size: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    inside_graph: tuple[Literal["scale", "normalize"], ...] = ("scale", "normalize")


class OutputFacts(Strict):
    """What the model gives: logits, before softmax."""

    name: str
    shape: list[int]
    dtype: Literal["float32"] = "float32"


class RuntimeFacts(Strict):
    """Which runtime opens the package; ``minimum <= version < below``."""

    name: str
    version: str
    minimum: str
    below: str


class SourceFacts(Strict):
    """Which weights went in; see `sepvit_edge.model.variants.Source`."""

    weights_sha256: str
    file_sha256: str | None
    file_size: int | None
    trained_on: str | None


class FloatLayer(Strict):
    """A layer that quantisation left in float, and why."""

    name: str
    reason: str


class QuantizationFacts(Strict):
    """The quantisation scheme, and where its scales come from.

    Attributes
    ----------
    scheme : str
        `sepvit_edge.quantization.SCHEME`.
    trained : bool
        Whether the weights were trained quantisation-aware; else they were only calibrated.
    float_layers : list of FloatLayer
        What is not in int8.
    calibration_data : str
        What the activations' scales were measured on.
    calibration_images : int
        How many.
    calibration_sha256 : str
        Over their preprocessed pixels.
    """

    scheme: str
    trained: bool
    float_layers: list[FloatLayer]
    calibration_data: str
    calibration_images: int
    calibration_sha256: str


class PlacedOps(Strict):
    """Operations that run in one place and one precision.

    Attributes
    ----------
    where : str
        Delegate, plugin or kernel library.
    precision : str
        The runtime's name of it.
    accelerated : bool
        Whether this is the target's own unit (and not a fallback).
    ops : int
        Operations after the runtime's fusions.
    macs_share : float
        Share of the network's multiply-accumulates, 0..1.
    kinds : dict
        Operations by type.
    """

    where: str
    precision: str
    accelerated: bool
    ops: int
    macs_share: float
    kinds: dict[str, int]


class OutsideOp(Strict):
    """An operation that did not go where the target wants it.

    Attributes
    ----------
    name, kind : str
        Of the operation.
    part : str or None
        Stage, block and part it belongs to.
    reason : str
        The likely reason.
    """

    name: str
    kind: str
    part: str | None
    reason: str


class Estimate(Strict):
    """What a tool chain's compiler expects of a device; nothing that was measured.

    Attributes
    ----------
    what : str
        ``"latency"``, ``"SRAM"`` ...
    value : float
        In `unit`.
    unit : str
        ``"ms"``, ``"MB"`` ...
    source : str
        The tool, its version, and the device and memory that it assumed.
    """

    what: str
    value: float
    unit: str
    source: str


class Placement(Strict):
    """Which operation runs where."""

    device: str
    placed: list[PlacedOps]
    outside: tuple[OutsideOp, ...] = ()
    macs_unattributed: float = 0.0
    estimates: tuple[Estimate, ...] = ()


class Parity(Strict):
    """Distance between a package and the fp32 reference; see `sepvit_edge.pipeline.parity`.

    Attributes
    ----------
    data : str
        Name of the data set.
    data_sha256 : str
        Over its images' content.
    images : int
        How many were compared.
    max_abs_error : float
        Of the logits.
    logits_range : float
        Largest minus smallest logit of the reference.
    sqnr_db : float
        Signal-to-quantisation-noise ratio of the logits.
    top1_agreement : float
        Share of images on which both name the same class, 0..1.
    top1_reference, top1_package : float or None
        Top-1 accuracy, 0..1, where the data has labels.
    top1_difference : float or None
        Package minus reference.
    top1_difference_interval : tuple of float or None
        Its 95 % confidence interval (paired).
    mcnemar_p : float or None
        Exact McNemar test of the two accuracies being equal.
    sqnr_quantized_db : float or None
        Of an int8 package: the same ratio against the quantised edge form as torch computes it,
        which leaves the runtime's own rounding.
    sqnr_cpu_db : float or None
        Of a package for an NPU whose model file a CPU runs too: the same ratio against that, which
        leaves the NPU's own arithmetic.
    """

    data: str
    data_sha256: str
    images: int
    max_abs_error: float
    logits_range: float
    sqnr_db: float
    top1_agreement: float
    top1_reference: float | None = None
    top1_package: float | None = None
    top1_difference: float | None = None
    top1_difference_interval: tuple[float, float] | None = None
    mcnemar_p: float | None = None
    sqnr_quantized_db: float | None = None
    sqnr_cpu_db: float | None = None


class PackageFile(Strict):
    """A file of the package, by its path inside the folder."""

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


# How a package's logits came about when it was checked:
#   run               by the runtime, as on the device
#   emulated          by the vendor's emulation of the device
#   reference model   by the reference model of the device's instruction set
#   simulated         by the vendor's simulator of the operations
#   evaluated         by an evaluator of our own, operation by operation
#   compiled          not at all: the tool chain accepted the model, nothing was computed
Verification = Literal["run", "emulated", "reference model", "simulated", "evaluated", "compiled"]


class Manifest(Strict):
    """manifest.json. Its JSON Schema is export/manifest.schema.json.

    `verification` says how parity was measured, and so what it proves about the device.
    `digest` is the SHA-256 of manifest.json itself with the digest's 64 characters set to zero, so
    that any language can check it without writing JSON again.
    """

    schema_version: int
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    model: ModelFacts
    input: InputFacts
    output: OutputFacts
    target: str
    precision: Precision
    quantization: QuantizationFacts | None
    runtime: RuntimeFacts
    versions: dict[str, str]
    recipe: Recipe
    source: SourceFacts
    files: list[PackageFile]
    placement: Placement
    verification: Verification = "run"
    parity: Parity | None


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of manifest.json."""
    return Manifest.model_json_schema()


def source_facts(source: Source) -> SourceFacts:
    """Put a model's source into the manifest's form."""
    return SourceFacts(
        weights_sha256=source.weights_sha256,
        file_sha256=source.file_sha256,
        file_size=source.file_size,
        trained_on=source.trained_on,
    )


if __name__ == "__main__":
    json.dump(manifest_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
