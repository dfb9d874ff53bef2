"""Core ML: model.mlpackage, an ML program."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..config.recipe import PlacementBudget
from ..config.toml import Strict
from ..errors import SepViTError
from ..model.graph import part_of
from ..package.manifest import InputFacts, Manifest, Placement
from ..package.verification import Verification
from .interface import LoweringJob, OpTiming, Session
from .support.placement import PlacementBuilder
from .support.subnormal import DOWN, INPUT_NAME, UP
from .support.vendor import VendorPatch
from .versions import versions_used


@contextmanager
def quiet() -> Iterator[None]:
    """Hide that coremltools was not tested with this torch and lacks what only macOS has."""
    loggers = [logging.getLogger(name) for name in ("coremltools", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # torch's own tree specs
        warnings.filterwarnings("ignore", module="coremltools")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


with quiet():
    import coremltools as ct
    from coremltools.converters.mil.backend.mil import helper as mil
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.pass_registry import register_pass
    from coremltools.models.compute_plan import MLComputePlan
    from coremltools.proto import MIL_pb2

    from .support.coreml_evaluator import SPECIFICATION, WEIGHTS, EvaluatorSession

MODEL = "model.mlpackage"
_MAC = sys.platform == "darwin"
LABEL, PROBABILITIES = "classLabel", "classLabel_probs"  # the names that coremltools gives
UNITS = {
    "all": ct.ComputeUnit.ALL,
    "cpu_and_ne": ct.ComputeUnit.CPU_AND_NE,
    "cpu_and_gpu": ct.ComputeUnit.CPU_AND_GPU,
    "cpu_only": ct.ComputeUnit.CPU_ONLY,
}
# Where the work should be, by the units that the recipe allows.
_WANTED = {
    "all": ("Neural Engine", "GPU"),
    "cpu_and_ne": ("Neural Engine",),
    "cpu_and_gpu": ("GPU",),
    "cpu_only": ("CPU",),
}
_DEVICES = {
    "MLCPUComputeDevice": "CPU",
    "MLGPUComputeDevice": "GPU",
    "MLNeuralEngineComputeDevice": "Neural Engine",
}
_PRECISIONS = {MIL_pb2.FLOAT16: "fp16", MIL_pb2.INT8: "int8"}
# What coremltools writes too, which draws new identifiers every time.
MANIFEST = {
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {
        "5c1d2f0e-8a0b-5d5e-9f3c-2b6a7e4d1c01": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Specification",
            "name": "model.mlmodel",
            "path": "com.apple.CoreML/model.mlmodel",
        },
        "5c1d2f0e-8a0b-5d5e-9f3c-2b6a7e4d1c02": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Weights",
            "name": "weights",
            "path": "com.apple.CoreML/weights",
        },
    },
    "rootModelIdentifier": "5c1d2f0e-8a0b-5d5e-9f3c-2b6a7e4d1c01",
}


_PROGRESS_BAR = VendorPatch(
    "tqdm:tqdm.__init__",
    "coremltools 9.0",
    "coremltools has no option that turns its progress bars off",
    "tests/runtimes/test_coreml.py::test_an_export_in_another_process_has_the_same_bytes_and_says_nothing",
)
PATCHES = (_PROGRESS_BAR,)


@contextmanager
def converting() -> Iterator[None]:
    """Keep coremltools off the terminal."""
    silent = partialmethod(_PROGRESS_BAR.original(), disable=True)
    with quiet(), _PROGRESS_BAR.replaced_by(silent):
        yield


# What Xcode shows of an output, by its meaning.
_MEANINGS = {
    "class_logits": "Logits, before softmax, one a class",
    "class_map_logits": "Logits of a map, one a class; enlarge it before taking the largest",
    "box_class_logits": "Logits of each anchor, before sigmoid, one a class",
    "box_deltas": "Deltas of each anchor's centre and size",
    "proposal_logits": "Logit of each anchor, before sigmoid: whether an object is there",
    "proposal_deltas": "Deltas of each anchor's centre and size",
    **{f"pyramid_{s}": f"Features at 1/{s} of the input's sides" for s in (4, 8, 16, 32)},
    "region_class_logits": "Logits of each region, before softmax, the background last",
    "region_box_deltas": "Deltas of each region's centre and size, four a class",
    "region_mask_logits": "Logits of each region's mask, before sigmoid, one a class",
}


class Options(Strict):
    """Options of a Core ML recipe.

    Attributes
    ----------
    deployment_target : str
        The oldest system that runs the package: ``"iOS16"`` (macOS 13; no operation of the model
        is newer), ``"iOS17"`` or ``"iOS18"``.
    compute_units : str
        Units that Core ML may use on a Mac: ``"all"``, ``"cpu_and_ne"``, ``"cpu_and_gpu"`` or
        ``"cpu_only"``. An app states its own.
    image_input : bool
        Take an image (a camera's pixel buffer, of the input's exact size) and name the class, for
        Vision and for Xcode's preview; one image a call. Else a float32 array of any batch.
    between_layers : str
        Precision between the int8 layers of an int8 package: ``"float16"``, which the Neural
        Engine needs, or ``"float32"`` for the answers that other runtimes give.
    """

    deployment_target: Literal["iOS16", "iOS17", "iOS18"] = "iOS16"
    compute_units: Literal["all", "cpu_and_ne", "cpu_and_gpu", "cpu_only"] = "all"
    image_input: bool = True
    between_layers: Literal["float16", "float32"] = "float16"


@register_pass(namespace="sepvit_edge")
class name_operations(AbstractGraphPass):
    """Give linears their name: coremltools' frontend names their result only."""

    def apply(self, prog: Any) -> None:
        """Rename in place the operations whose name does not tell their part."""
        for operation in prog.functions["main"].operations:
            if len(operation.outputs) == 1 and part_of(operation.name) is None:
                operation.name = operation.outputs[0].name


@register_pass(namespace="sepvit_edge")
class keep_weights_normal(AbstractGraphPass):
    """Move a factor from the first convolution's weights to its input (`support.subnormal`).

    For int8 weights the factor moves from their scales.
    """

    def apply(self, prog: Any) -> None:
        """Move the factor in place."""
        block = prog.functions["main"]
        conv = next(op for op in block.operations if op.op_type == "conv")
        integers = conv.weight.op if conv.weight.op.op_type.startswith("constexpr") else None
        with block:
            if integers is None:
                weight = conv.weight.val * UP
                x = mb.mul(x=conv.x, y=DOWN, before_op=conv, name=INPUT_NAME)
            else:
                pixels = conv.x.op  # dequantize
                weight = mb.constexpr_affine_dequantize(
                    quantized_data=integers.quantized_data.val,
                    zero_point=integers.zero_point.val,
                    scale=integers.scale.val * UP,
                    axis=integers.axis.val,
                    before_op=conv,
                    name=integers.name,
                )
                scale = np.float32(pixels.scale.val * DOWN)
                x = mb.dequantize(input=pixels.input, scale=scale, before_op=conv)
            inputs = dict(conv.inputs) | {"x": x, "weight": weight}
            scaled = mb.conv(**inputs, before_op=conv, name=conv.name)
        # Forced: coremltools guards the integers that the new convolution reads as well.
        block.replace_uses_of_var_after_op(
            anchor_op=conv, old_var=conv.outputs[0], new_var=scaled, force_replace=True
        )
        block.remove_ops([conv])


def pipeline(half: bool) -> ct.PassPipeline:
    """Return coremltools' passes with the two above; `half` if pixels are computed in float16."""
    passes = ct.PassPipeline.DEFAULT
    passes.insert_pass(0, "sepvit_edge::name_operations")
    if half:
        passes.insert_pass(1, "sepvit_edge::keep_weights_normal")
    return passes


class CoreMLBackend:
    """The target's backend; see `interface.Backend`."""

    target = "coreml"

    def lower(self, job: LoweringJob, folder: Path) -> Placement:
        """Convert the decomposed program as it is, so that its names last."""
        options = job.recipe.options_as(Options)
        _check(job, options)
        shape, of_image = tuple(job.input.shape), isinstance(job.input, InputFacts)
        if options.image_input and of_image:
            # Scale 1 and bias 0: the graph normalises by itself.
            source = ct.ImageType(job.input.name, shape, color_layout=ct.colorlayout.RGB)
        else:
            source = ct.TensorType(job.input.name, shape, np.float32)
        half = job.recipe.precision == "fp16"
        if job.recipe.precision == "int8":
            half = options.between_layers == "float16"
        with converting():
            model = ct.convert(
                job.program,
                inputs=[source],
                outputs=[ct.TensorType(_valid(name), dtype=np.float32) for name in job.outputs],
                minimum_deployment_target=ct.target[options.deployment_target],
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                pass_pipeline=pipeline(half and of_image),
                skip_model_load=True,
            )
            specification = model.get_spec()
        if options.image_input and job.task == "classification":
            _add_classifier(specification, job.labels, _valid(job.outputs[0]))
        _describe(specification.description, job, options)
        package = folder / MODEL
        (package / WEIGHTS).parent.mkdir(parents=True)
        (package / SPECIFICATION).write_bytes(specification.SerializeToString(deterministic=True))
        shutil.copyfile(Path(model.weights_dir, WEIGHTS.name), package / WEIGHTS)
        (package / "Manifest.json").write_text(json.dumps(MANIFEST, indent=4) + "\n")
        return _placement(specification, job, package, options)

    def open(self, folder: Path, manifest: Manifest, threads: int | None) -> Session:
        """Load into Core ML on macOS, which chooses its threads, elsewhere into the evaluator."""
        if _MAC:
            return CoreMLSession(folder / MODEL, manifest.runtime.options_as(Options))
        return EvaluatorSession(folder / MODEL, threads)

    def verification(self) -> Verification:
        """Return "run" on macOS; elsewhere the evaluator computes, whose times mean nothing."""
        return "run" if _MAC else "evaluated"


def _check(job: LoweringJob, options: Options) -> None:
    batch = job.input.shape[0]
    if job.recipe.precision == "int8" and options.deployment_target == "iOS16":
        raise SepViTError(
            'Core ML quantises activations from iOS 17 on; set deployment_target = "iOS17"'
        )
    if job.input.layout != "NCHW":
        raise SepViTError(
            'Core ML does not support uint8 inputs: the recipe needs [edge] form = "rows-float"'
        )
    if options.image_input and isinstance(job.input, InputFacts) and batch > 1:
        raise SepViTError(
            f"an image input of Core ML takes one image a call, not {batch}; set "
            "image_input = false in the recipe's options, or leave the batch at 1"
        )
    if not _MAC and job.recipe.placement != PlacementBudget():
        raise SepViTError(
            "a placement budget for coreml can be checked on macOS only; leave [placement] out"
        )


def _valid(name: str) -> str:
    """Turn a tap's name into one that Core ML allows: ``stages.0.cpe`` -> ``stages_0_cpe``."""
    return re.sub(r"\W", "_", name)


def _add_classifier(specification: Any, labels: tuple[str, ...], logits: str) -> None:
    """Append softmax and `classify`: an image classifier that keeps its logits as an output.

    Vision and Xcode's preview name classes only for a classifier. coremltools' own
    ClassifierConfig fails where the model has another output (9.0: "list index out of range"), so
    its operations are written here. Core ML gives the probabilities by label: a label that occurs
    more than once gets its class number.
    """
    counts = Counter(labels)
    names = [f"{n} ({i})" if counts[n] > 1 else n for i, n in enumerate(labels)]
    function = specification.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]

    def append(kind: str, inputs: dict[str, Any], outputs: dict[str, Any], **more: Any) -> None:
        operation = block.operations.add(type=kind)
        for parameter, value in inputs.items():
            literal = {} if isinstance(value, str) else {"value": value}
            operation.inputs[parameter].arguments.add(**(literal or {"name": value}))
        for name, type_ in outputs.items():
            operation.outputs.add(name=name, type=type_)
        more["name"] = mil.create_scalar_value(next(iter(outputs)))
        for attribute, value in more.items():
            operation.attributes[attribute].CopyFrom(value)

    string = mil.create_valuetype_scalar(MIL_pb2.STRING)
    double = mil.create_valuetype_scalar(MIL_pb2.FLOAT64)
    by_label = MIL_pb2.ValueType()
    by_label.dictionaryType.keyType.CopyFrom(string)
    by_label.dictionaryType.valueType.CopyFrom(double)
    axis = {"probabilities_axis": mil.create_valuetype_scalar(MIL_pb2.INT32)}
    row = {"probabilities": mil.create_valuetype_tensor((1, len(names)), MIL_pb2.FLOAT32)}
    classes = mil.create_list_scalarvalue(names, str)
    append("const", {}, axis, val=mil.create_scalar_value(-1))
    append("softmax", {"x": logits, "axis": "probabilities_axis"}, row)
    append(
        "classify",
        {"probabilities": "probabilities", "classes": classes},
        {LABEL: string, PROBABILITIES: by_label},
    )
    block.outputs.extend([LABEL, PROBABILITIES])
    description = specification.description
    description.output.add(name=LABEL).type.stringType.SetInParent()
    description.output.add(name=PROBABILITIES).type.dictionaryType.stringKeyType.SetInParent()
    description.predictedFeatureName, description.predictedProbabilitiesName = LABEL, PROBABILITIES


def _describe(description: Any, job: LoweringJob, options: Options) -> None:
    """Write the texts that Xcode shows; they do not depend on time or machine of the export."""
    model, rule, metadata = job.model, job.input, description.metadata
    height, width = model.input_size or (model.image_size, model.image_size)
    metadata.Clear()  # coremltools puts the date there
    metadata.shortDescription = (
        f"{model.name}: image {job.task}, {model.num_classes} classes, "
        f"{width} x {height} pixels, {job.recipe.precision}"
    )
    metadata.versionString = versions_used(["sepvit-edge"])["sepvit-edge"]
    metadata.license = "Apache-2.0 (the program; the weights have the licence of their checkpoint)"
    for fact, value in model.model_dump(exclude={"form"}, exclude_none=True).items():
        metadata.userDefined[fact] = str(value)
    if not isinstance(rule, InputFacts):
        description.input[0].shortDescription = "Features of regions (RoIAlign)"
        _describe_outputs(description, job)
        return
    metadata.userDefined["preprocessing"] = rule.model_dump_json(exclude_none=True)
    if options.image_input and job.task == "classification":
        metadata.userDefined["com.apple.coreml.model.preview.type"] = "imageClassifier"
    else:
        metadata.userDefined["labels"] = json.dumps(job.labels, ensure_ascii=False)
    place = (
        f"resized so that the shorter side is {rule.resize_shorter_side}, then the centre "
        f"{rule.crop_size} x {rule.crop_size}"
    )
    if job.task != "classification":
        place = f"the whole image, as large as {width} x {height} takes it, in the top left corner"
    description.input[0].shortDescription = f"RGB pixels 0-255; {place}; normalised inside"
    _describe_outputs(description, job)


def _describe_outputs(description: Any, job: LoweringJob) -> None:
    texts = {_valid(tap): f"Output of {tap}" for tap in job.outputs}
    texts |= {_valid(result.name): _MEANINGS[result.meaning] for result in job.results}
    texts |= {LABEL: "The most probable class", PROBABILITIES: "Probability by class"}
    for output in description.output:
        output.shortDescription = texts[output.name]


def _placement(specification: Any, job: LoweringJob, package: Path, options: Options) -> Placement:
    """Count the program's operations by precision, on macOS by the device that Core ML plans too.

    Elsewhere nothing counts as accelerated: the device decides, when it loads the program.
    """
    wanted = _WANTED[options.compute_units]
    plan = _plan(package, options) if _MAC else {}
    # An operation whose result is an output of the model has that output's name.
    renamed = dict(zip(map(_valid, job.outputs), _output_nodes(job), strict=True))
    function = specification.mlProgram.functions["main"]
    operations = [
        (operation, *plan.get(operation.outputs[0].name, ("ML program", ())))
        for operation in function.block_specializations[function.opset].operations
        if operation.type != "const"
    ]
    builder = PlacementBuilder(job.program)
    devices = sorted({device for _, device, _ in operations})
    places = {device: builder.place(device, accelerated=device in wanted) for device in devices}
    for operation, device, possible in operations:
        output = operation.outputs[0]
        name = output.name.removesuffix("_cast_fp16")
        name = renamed.get(name, name)
        precision = _PRECISIONS.get(output.type.tensorType.dataType, "fp32")
        places[device].add(precision, operation.type, [name])
        if _MAC and device not in wanted:
            able = not set(wanted).isdisjoint(possible)
            reason = "Core ML prefers it there" if able else f"{wanted[0]} does not support it"
            builder.outside(name, operation.type, reason)
    return builder.placement(
        f"macOS, {options.compute_units}" if _MAC else "not decided on this system"
    )


def _output_nodes(job: LoweringJob) -> list[str]:
    return [str(name) for name in job.program.graph_signature.user_outputs]


def _plan(package: Path, options: Options) -> dict[str, tuple[str, list[str]]]:
    """Ask Core ML (macOS 14.4 or later) where each operation will run, and where it could.

    Returns
    -------
    dict
        Name of the operation's first output -> preferred device, supported devices.
    """
    compiled = ct.models.utils.compile_model(str(package))
    plan = MLComputePlan.load_from_path(compiled, UNITS[options.compute_units])
    devices = {}
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None:
            both = [usage.preferred_compute_device, *usage.supported_compute_devices]
            preferred, *supported = (_DEVICES.get(type(d).__name__, "unknown") for d in both)
            devices[operation.outputs[0].name] = (preferred, supported)
    return devices


class CoreMLSession(Session):
    """A package in Core ML, on macOS; see `interface.Session`."""

    def __init__(self, package: Path, options: Options) -> None:
        units = UNITS[options.compute_units]
        try:
            with quiet():
                self._model = ct.models.MLModel(str(package), compute_units=units)
            description = self._model.get_spec().description
        except Exception as error:  # Core ML's errors and protobuf's have no class in common
            raise SepViTError(f"Core ML cannot load {package}: {_first_line(error)}") from None
        self._input = description.input[0].name
        self._image = description.input[0].type.HasField("imageType")
        self._outputs = [o.name for o in description.output if o.type.HasField("multiArrayType")]

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch; an image is made of the pixels where the package takes one."""
        source: object = pixels
        if self._image:
            source = Image.fromarray(pixels[0].transpose(1, 2, 0).astype(np.uint8))
        try:
            results = self._model.predict({self._input: source})
        except Exception as error:
            raise SepViTError(f"Core ML cannot run the package: {_first_line(error)}") from None
        return [np.asarray(results[name], np.float32) for name in self._outputs]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Refuse: Core ML does not report times of single operations."""
        raise SepViTError(
            "Core ML does not report times of operations; Xcode's performance report of "
            "model.mlpackage does, on a Mac or a connected device"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


backend = CoreMLBackend()
