"""The schema of manifest.json; `folder.py` reads and writes it.

``python -m sepvit_edge.package.manifest`` prints the JSON Schema that export/ publishes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from ..config.recipe import OptionsT, Precision
from ..config.toml import Strict, first_fault
from ..errors import SepViTError
from ..model.dense.config import BOX_HEAD, MASK_HEAD
from ..model.variants import Source
from .postprocessing import PostprocessingRule
from .schema import published_schema, version_pattern
from .verification import Verification

SCHEMA_VERSION = "2.3"
MANIFEST, LABELS, GOLDEN = "manifest.json", "labels.txt", "golden.safetensors"

Task = Literal["classification", "segmentation", "detection", "instance-segmentation"]
# The tasks whose packages this version runs.
TASKS: tuple[Task, ...] = get_args(Task)
CLASS_LOGITS = "class_logits"
# Meanings of outputs that a task needs, by task.
MEANINGS: dict[Task, tuple[str, ...]] = {
    "classification": (CLASS_LOGITS,),
    "segmentation": ("class_map_logits",),
    "detection": ("box_class_logits", "box_deltas"),
    "instance-segmentation": (
        "proposal_logits",
        "proposal_deltas",
        *(f"pyramid_{stride}" for stride in (4, 8, 16, 32)),
    ),
}
# Graphs behind the first one that a task needs, and the meanings of their outputs.
GRAPHS: dict[str, dict[str, tuple[str, ...]]] = {
    "instance-segmentation": {
        BOX_HEAD: ("region_class_logits", "region_box_deltas"),
        MASK_HEAD: ("region_mask_logits",),
    }
}


class ModelFacts(Strict):
    """The network.

    Attributes
    ----------
    variant : str
        Its key, as ``"lite"``.
    name : str
        Its published name.
    form : str
        The edge form that was lowered.
    num_classes : int
        Number of classes.
    image_size : int
        Side of the square input in pixels; of a dense model, its input's longer side.
    parameters : int
        Number of parameters of the reference.
    macs : int
        Multiply-accumulates of one image.
    head : str or None
        Of a dense model: ``"semantic-fpn"``, ``"upernet"``, ``"retinanet"`` or ``"mask-rcnn"``. All
        that follow are a dense model's too, and None for others and before version 2.2.
    channels : int or None
        Width of its neck or head.
    input_size : tuple of int or None
        Height and width of its input in pixels.
    window : str or None
        Its window rule: ``"paper"`` pads to windows of 7, ``"fit"`` pads nothing.
    window_size : int or None
        Side of a window in pixels of a map.
    """

    variant: str
    name: str
    form: str
    num_classes: int
    image_size: int
    parameters: int
    macs: int
    head: str | None = None
    channels: int | None = None
    input_size: tuple[int, int] | None = None
    window: str | None = None
    window_size: int | None = None


class InputFacts(Strict):
    """The model's input, and how an image becomes it.

    Attributes
    ----------
    name : str
        Name of the tensor in the model file.
    shape : list of int
        Shape of the tensor, batch first.
    dtype, layout : str
        Type and order of axes of the tensor.
    color_order : str
        Always RGB.
    value_range : tuple of int
        Range of a pixel's values, whatever the dtype.
    resize_rule : str
        Pillow's antialiased BILINEAR; without `fit` on the shorter side, then the centre square.
    resize_shorter_side : int
        Shorter side after resizing, in pixels.
    crop_size : int
        Side of the centre square, in pixels.
    crop : float
        Share of the shorter side that the square keeps.
    mean, std : tuple of float
        Mean and standard deviation per channel, for pixels scaled to 0..1.
    inside_graph : list of str
        Steps that the graph does itself; the caller does the others.
    fit : str or None
        Of a dense model: ``"whole-top-left"``, the whole image in its own proportions, as large as
        the input takes it, in its top left corner; the rest has the mean colour. There is no crop
        then: `resize_shorter_side` and `crop_size` are the input's longer side. None for others.
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
    fit: str | None = None


class OutputFacts(Strict):
    """One output of the model.

    Attributes
    ----------
    name : str
        Name of the tensor in the model file.
    meaning : str
        What its numbers are. A reader looks for the meanings that it knows, and leaves the other
        outputs alone: ``"class_logits"`` is one row of logits an image, before softmax;
        ``"class_map_logits"`` (1, classes, H / 4, W / 4) the logits of a map, before enlarging;
        ``"box_class_logits"`` (1, A, classes) and ``"box_deltas"`` (1, A, 4) those of A anchors;
        ``"proposal_logits"`` (1, A, 1), ``"proposal_deltas"`` (1, A, 4) and ``"pyramid_4"`` ...
        (1, channels, H / 4, W / 4) the first stage of a detector with two; its other graphs have
        ``"region_class_logits"`` (N, classes + 1), ``"region_box_deltas"`` (N, 4 classes) and
        ``"region_mask_logits"`` (N, classes, h, w).
    shape : list of int
        Shape of the tensor, batch first.
    dtype : str
        Type of the tensor, as NumPy names it.
    """

    name: str
    meaning: str
    shape: list[int]
    dtype: str = "float32"


class RegionInput(Strict):
    """The input of a graph that looks at regions of an image.

    Attributes
    ----------
    name : str
        Name of the tensor in the model file.
    meaning : str
        ``"region_features"``: made of the first graph's outputs, by `postprocessing`.
    shape : list of int
        Regions a call, channels, cells, cells.
    dtype, layout : str
        Type and order of axes of the tensor.
    """

    name: str
    meaning: str
    shape: list[int]
    dtype: Literal["float32"] = "float32"
    layout: Literal["NCHW"] = "NCHW"


class RuntimeFacts(Strict):
    """The runtime that opens the package: ``minimum <= version < below``.

    Attributes
    ----------
    name : str
        Name of its distribution.
    version : str
        The version that the package was exported with.
    minimum, below : str
        The range of versions that open it.
    options : dict
        The target's own options, as the recipe gave them. A session reads those that it needs, and
        ignores the others.
    """

    name: str
    version: str
    minimum: str
    below: str
    options: dict[str, str | int | float | bool]

    def options_as(self, kind: type[OptionsT]) -> OptionsT:
        """Read the options into a backend's own model of them.

        Raises
        ------
        SepViTError
            If a value is not allowed; the key is named.
        """
        try:
            return kind.model_validate(self.options, extra="ignore")
        except ValidationError as error:
            raise SepViTError(f"the package's options: {first_fault(error)}") from None


class SourceFacts(Strict):
    """The weights that went in; see `sepvit_edge.model.variants.Source`."""

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
        Name of the scheme.
    trained : bool
        Whether the weights were trained quantisation-aware; otherwise they were calibrated.
    float_layers : list of FloatLayer
        The layers that are not in int8.
    calibration_data : str
        Data that the activations' scales were measured on.
    calibration_images : int
        Number of images they were measured on.
    calibration_sha256 : str
        SHA-256 of these images' preprocessed pixels.
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
        Precision as the runtime names it.
    accelerated : bool
        Whether this is the target's own unit (and not a fallback).
    ops : int
        Number of operations after the runtime's fusions.
    macs_share : float
        Share of the network's multiply-accumulates, 0..1.
    kinds : dict
        Number of operations by type.
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
        Name and type of the operation.
    part : str or None
        Stage, block and part that it belongs to.
    reason : str
        The likely reason.
    """

    name: str
    kind: str
    part: str | None
    reason: str


class Estimate(Strict):
    """A figure that a toolchain's compiler expects of a device; it was not measured.

    Attributes
    ----------
    what : str
        The figure: ``"latency"``, ``"SRAM"`` ...
    value : float
        Its value in `unit`.
    unit : str
        Its unit: ``"ms"``, ``"MB"`` ...
    source : str
        The tool, its version, and the device and memory that it assumes.
    """

    what: str
    value: float
    unit: str
    source: str


class Placement(Strict):
    """Where each operation runs.

    Attributes
    ----------
    device : str
        The device, as the runtime or compiler names it.
    placed : list of PlacedOps
        Operations by place and precision.
    outside : tuple of OutsideOp
        Operations outside the target's own unit.
    macs_unattributed : float
        Share of the multiply-accumulates that no operation accounts for, 0..1.
    estimates : tuple of Estimate
        Figures of the compiler.
    """

    device: str
    placed: list[PlacedOps]
    outside: tuple[OutsideOp, ...] = ()
    macs_unattributed: float = 0.0
    estimates: tuple[Estimate, ...] = ()


class GraphFacts(Strict):
    """A graph behind the first one.

    Attributes
    ----------
    name : str
        Its name, and the folder of its model file, which is called as the first one's.
    input : RegionInput
        Its input.
    outputs : list of OutputFacts
        Its outputs, in the order of the model file.
    macs : int
        Multiply-accumulates of a call.
    placement : Placement
        Where its operations run.
    """

    name: str = Field(pattern="^[a-z][a-z0-9-]{0,39}$")
    input: RegionInput
    outputs: list[OutputFacts]
    macs: int
    placement: Placement


class Selection(Strict):
    """Which images of a data set were taken, and what their labels are.

    Attributes
    ----------
    available : int
        Number of images in the data set.
    rule : str
        ``"all"``; ``"evenly over classes"``; or, without labels, ``"evenly over the set"``.
    seed : int or None
        Seed of the sample, if not all images were taken.
    class_rule : str or None
        How folders were matched to classes (`sepvit_edge.data.classes`); None for other data.
    left_out : dict
        Reason -> number of the files in a folder that are not read as images.
    """

    available: int
    rule: str
    seed: int | None = None
    class_rule: str | None = None
    left_out: dict[str, int] = Field(default_factory=dict)


class OutputParity(Strict):
    """Distance of one output of a dense package from the fp32 reference.

    Attributes
    ----------
    name : str
        The output.
    max_abs_error, range : float
        Largest difference of a number; largest minus smallest number of the reference.
    sqnr_db : float
        Signal-to-quantisation-noise ratio.
    sqnr_quantized_db : float or None
        The same against the quantised edge form in torch, for int8 packages.
    """

    name: str
    max_abs_error: float
    range: float
    sqnr_db: float
    sqnr_quantized_db: float | None = None


class Parity(Strict):
    """Distance between a package and the fp32 reference; see `sepvit_edge.pipeline.parity`.

    Attributes
    ----------
    data : str
        Name of the data set.
    data_sha256 : str
        SHA-256 of its images' content; of a classifier's, of the SHA-256 of each image's pixels.
    images : int
        Number of images that were compared.
    max_abs_error : float
        Largest difference of a logit.
    logits_range : float
        Largest minus smallest logit of the reference.
    sqnr_db : float
        Signal-to-quantisation-noise ratio of the logits.
    top1_agreement : float
        Share of images with the same class in both, 0..1.
    top1_reference, top1_package : float or None
        Top-1 accuracy, 0..1, where the data has labels.
    top1_difference : float or None
        Top-1 accuracy of the package minus that of the reference.
    top1_difference_interval : tuple of float or None
        Its 95 % confidence interval (paired).
    mcnemar_p : float or None
        Exact McNemar test of the two accuracies being equal.
    sqnr_quantized_db : float or None
        The same ratio against the quantised edge form computed by torch, for int8 packages: it
        shows the runtime's own rounding.
    sqnr_cpu_db : float or None
        The same ratio against a CPU, for NPU packages whose model file a CPU runs too: it shows
        the NPU's own arithmetic.
    selection : Selection or None
        Which images of the data set they are; None in packages of version 2.0.
    outputs : tuple of OutputParity or None
        Of a dense package: each output. The figures above are then those of the worst output, and
        `top1_agreement` is the share of pixels with the same class in both class maps, or of
        boxes that both find (of one class, an overlap of at least 0.5). None for others.
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
    selection: Selection | None = None
    outputs: tuple[OutputParity, ...] | None = None


class PackageFile(Strict):
    """A file of the package, by its path inside the folder."""

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(Strict):
    """manifest.json. Its JSON Schemas are export/manifest-*.schema.json.

    Attributes
    ----------
    schema_version : str
        ``"major.minor"``; see `sepvit_edge.package.schema`.
    digest : str
        SHA-256 of manifest.json itself with the digest's 64 characters set to zero, so that any
        language can check it without writing JSON again.
    task : str
        What the model answers.
    model : ModelFacts
        The network.
    input : InputFacts
        Its input.
    outputs : list of OutputFacts
        Its outputs, in the order of the model file.
    target, precision : str
        Target and precision of the recipe.
    quantization : QuantizationFacts or None
        How an int8 package was quantised.
    runtime : RuntimeFacts
        The runtime that opens the package.
    versions : dict
        Versions of the distributions that the package's bytes depend on.
    recipe : dict
        The recipe it was made by. Readers keep it opaque: only verification parses it.
    source : SourceFacts
        The weights that went in.
    files : list of PackageFile
        Every other file of the package.
    placement : Placement
        Which operation runs where.
    verification : str
        How parity was measured, and so what it proves about the device
        (`sepvit_edge.package.verification`).
    parity : Parity or None
        Distance to the reference; None where nothing here computes the package.
    postprocessing : SegmentationRule, DetectionRule, TwoStageRule or None
        Of a dense package: how its outputs become a class map, boxes or masks. None for others.
    graphs : tuple of GraphFacts or None
        The graphs behind the first one, of a task that needs some; `input`, `outputs` and
        `placement` are then the first one's. None for others and before version 2.3.
    """

    schema_version: str = Field(pattern=version_pattern(SCHEMA_VERSION))
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    task: Task
    model: ModelFacts
    input: InputFacts
    outputs: list[OutputFacts]
    target: str
    precision: Precision
    quantization: QuantizationFacts | None
    runtime: RuntimeFacts
    versions: dict[str, str]
    recipe: dict[str, Any]
    source: SourceFacts
    files: list[PackageFile]
    placement: Placement
    verification: Verification = "run"
    parity: Parity | None
    postprocessing: PostprocessingRule | None = None
    graphs: tuple[GraphFacts, ...] | None = Field(None, validate_default=True)

    @field_validator("outputs")
    @classmethod
    def _has_logits(cls, outputs: list[OutputFacts], info: ValidationInfo) -> list[OutputFacts]:
        task = info.data.get("task")
        _check_meanings(outputs, MEANINGS.get(task, ()), f"a package for {task}")  # type: ignore[arg-type]
        return outputs

    @field_validator("graphs")
    @classmethod
    def _has_graphs(
        cls, graphs: tuple[GraphFacts, ...] | None, info: ValidationInfo
    ) -> tuple[GraphFacts, ...] | None:
        for name, meanings in GRAPHS.get(info.data.get("task", ""), {}).items():
            found = [graph for graph in graphs or () if graph.name == name]
            if len(found) != 1:
                raise ValueError(f"a package for {info.data['task']} has one graph {name}")
            _check_meanings(found[0].outputs, meanings, f"the graph {name}")
        return graphs

    @field_validator("postprocessing")
    @classmethod
    def _fits_the_task(
        cls, rule: PostprocessingRule | None, info: ValidationInfo
    ) -> PostprocessingRule | None:
        if rule is not None and rule.task != info.data.get("task"):
            raise ValueError(f"it is for {rule.task}, not for the package's task")
        return rule


def _check_meanings(outputs: list[OutputFacts], meanings: Sequence[str], what: str) -> None:
    for meaning in meanings:
        found = [output for output in outputs if output.meaning == meaning]
        if len(found) != 1 or found[0].dtype != "float32":
            raise ValueError(f"{what} has one output with the meaning {meaning}, in float32")


def manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema of manifest.json."""
    return published_schema(Manifest)


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
