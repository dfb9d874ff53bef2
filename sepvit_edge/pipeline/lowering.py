"""From a model and a recipe to a backend's job, and to the manifest of the result."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from ..backends.interface import LoweringJob
from ..backends.registry import RUNTIMES, get_backend
from ..backends.versions import versions_used
from ..config.recipe import Recipe
from ..data.sample import Dataset
from ..errors import SepViTError
from ..model.edge import EdgeModel, find_form
from ..model.graph import trace
from ..model.logits import torch_threads
from ..model.reference import SepViT, count_macs, count_parameters
from ..model.variants import find_variant
from ..package.folder import list_files, write_manifest
from ..package.manifest import (
    CLASS_LOGITS,
    SCHEMA_VERSION,
    FloatLayer,
    InputFacts,
    Manifest,
    ModelFacts,
    OutputFacts,
    Placement,
    QuantizationFacts,
    RuntimeFacts,
    SourceFacts,
)
from ..quantization.calibration import calibrate
from ..quantization.full_int8 import calibrate_full
from ..quantization.interface import ProgramQuantization
from ..quantization.scheme import LayerQuantization, choose_float
from .defaults import default_calibration

_TOOLS = ("numpy", "pillow", "sepvit-edge", "torch")


def quantization_for(
    model: SepViT, recipe: Recipe, calibration: Dataset | None = None
) -> ProgramQuantization:
    """Return the integers and scales of an int8 package: the model's own, or calibrated ones.

    A recipe with every operation in integers always calibrates the scales of all tensors.

    Parameters
    ----------
    model : SepViT
        The reference.
    recipe : Recipe
        Layers to leave in float, and number of calibration images.
    calibration : Dataset, optional
        Typical images. Default: built-in ones.

    Raises
    ------
    SepViTError
        If a pattern of the recipe matches no layer.
    """
    options = recipe.quantization
    own = model.quantization
    full = options.scheme == "full"
    if full and options.keep_float:
        raise SepViTError("full int8 has no float layers; leave --keep-float out")
    if full or own is None:
        data, images = calibration or default_calibration(model), options.calibration_images
        with torch_threads(1):
            if full:
                form = find_form(recipe.edge.form)
                return calibrate_full(model, data, form, images=images)
            own = calibrate(model, data, images=images, keep_float=options.keep_float)
            return LayerQuantization(own, options.classifier)
    floats = choose_float([*own.layers, *own.float_layers], options.keep_float)
    layers = {name: layer for name, layer in own.layers.items() if name not in floats}
    floats = {**own.float_layers, **floats}
    return LayerQuantization(replace(own, layers=layers, float_layers=floats), options.classifier)


def lowering_job(
    model: SepViT,
    edge: EdgeModel,
    recipe: Recipe,
    quantization: ProgramQuantization | None = None,
) -> LoweringJob:
    """Quantise and trace an edge model, and gather the facts for its files and manifest.

    Parameters
    ----------
    model : SepViT
        The reference.
    edge : EdgeModel
        Its edge form; quantised in place.
    recipe : Recipe
        Target, precision and options.
    quantization : ProgramQuantization, optional
        Integers and scales of an int8 package.
    """
    config, pixels = model.config, edge.form.pixels
    program = trace(edge) if quantization is None else quantization.program(edge)
    return LoweringJob(
        program=program,
        outputs=("logits", *edge.tap_names),
        recipe=recipe,
        labels=config.labels,
        model=ModelFacts(
            variant=config.variant,
            name=find_variant(config.variant).name,
            form=edge.form.name,
            num_classes=config.num_classes,
            image_size=config.image_size,
            parameters=count_parameters(model),
            macs=count_macs(model),
        ),
        input=InputFacts(
            name="pixels",
            shape=list(edge.example_input().shape),
            dtype=pixels.dtype,
            layout=pixels.layout,
            resize_shorter_side=config.preprocessing.resize_side(config.image_size),
            crop_size=config.image_size,
            **asdict(config.preprocessing),
        ),
        quantization=None if quantization is None else _quantization_facts(quantization),
    )


def _quantization_facts(quantization: ProgramQuantization) -> QuantizationFacts:
    calibration, floats = quantization.calibration, quantization.float_layers
    return QuantizationFacts(
        scheme=quantization.scheme,
        trained=quantization.trained,
        float_layers=[FloatLayer(name=name, reason=reason) for name, reason in floats.items()],
        calibration_data=calibration.data,
        calibration_images=calibration.images,
        calibration_sha256=calibration.sha256,
    )


def make_manifest(
    job: LoweringJob, installed: str, source: SourceFacts, placement: Placement
) -> Manifest:
    """Describe a package whose files and parity are not known yet."""
    runtime = RUNTIMES[job.recipe.target]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        digest="0" * 64,
        task="classification",
        model=job.model,
        input=job.input,
        outputs=[
            OutputFacts(
                name="logits",
                meaning=CLASS_LOGITS,
                shape=[job.input.shape[0], job.model.num_classes],
            )
        ],
        target=job.recipe.target,
        precision=job.recipe.precision,
        quantization=job.quantization,
        runtime=RuntimeFacts(
            name=runtime.distribution,
            version=installed,
            minimum=runtime.minimum,
            below=runtime.below,
            options=job.recipe.options,
        ),
        versions=versions_used(_TOOLS)
        | {runtime.distribution: installed}
        | versions_used(runtime.tools),
        recipe=job.recipe.model_dump(mode="json"),
        source=source,
        files=[],
        placement=placement,
        verification=get_backend(job.recipe.target).verification(),
        parity=None,
    )


def seal(manifest: Manifest, folder: Path) -> None:
    """Write the manifest, with the digest of every file that the folder holds."""
    write_manifest(manifest.model_copy(update={"files": list_files(folder)}), folder)
