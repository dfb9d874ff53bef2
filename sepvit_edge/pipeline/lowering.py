"""From a model and a recipe to a backend's job, and to the manifest of the result."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from ..backends.interface import LoweringJob
from ..backends.registry import RUNTIMES, check_dense_target, get_backend
from ..backends.versions import versions_used
from ..config.recipe import Recipe
from ..data.sample import Dataset
from ..errors import SepViTError
from ..model.create import ReferenceModel
from ..model.dense import DenseModel
from ..model.edge import EdgeModel, find_form
from ..model.edge.dense import region_models
from ..model.graph import macs_by_operation, trace
from ..model.logits import torch_threads
from ..model.reference import SepViT
from ..package.folder import list_files, write_manifest
from ..package.manifest import (
    SCHEMA_VERSION,
    FloatLayer,
    GraphFacts,
    Manifest,
    Placement,
    QuantizationFacts,
    RuntimeFacts,
    SourceFacts,
)
from ..package.postprocessing import TwoStageRule
from ..quantization.calibration import Regions, calibrate
from ..quantization.full_int8 import calibrate_full
from ..quantization.interface import ProgramQuantization
from ..quantization.scheme import LayerQuantization, choose_float
from .defaults import calibration_images, default_calibration
from .facts import input_facts, model_facts, output_facts, postprocessing_of, region_facts, task_of
from .regions import best_regions

_TOOLS = ("numpy", "pillow", "sepvit-edge", "torch")


def quantization_for(
    model: ReferenceModel, recipe: Recipe, calibration: Dataset | None = None
) -> ProgramQuantization:
    """Return the integers and scales of an int8 package: the model's own, or calibrated ones.

    A recipe with every operation in integers always calibrates the scales of all tensors.

    Parameters
    ----------
    model : SepViT or DenseModel
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
    if isinstance(model, DenseModel):
        check_dense_target(recipe.target)
        if full:
            raise SepViTError(
                'scheme = "full" is for classifiers; leave it out of [quantization] for '
                f"{model.config.task}"
            )
    if full or own is None:
        data, images = calibration or default_calibration(model), calibration_images(model, recipe)
        with torch_threads(1):
            if full and isinstance(model, SepViT):
                form = find_form(recipe.edge.form)
                return calibrate_full(model, data, form, images=images)
            own = calibrate(
                model,
                data,
                images=images,
                keep_float=options.keep_float,
                regions=_regions_of(model),
            )
            return LayerQuantization(own, options.classifier)
    floats = choose_float([*own.layers, *own.float_layers], options.keep_float)
    layers = {name: layer for name, layer in own.layers.items() if name not in floats}
    floats = {**own.float_layers, **floats}
    return LayerQuantization(replace(own, layers=layers, float_layers=floats), options.classifier)


def _regions_of(model: ReferenceModel) -> Regions | None:
    """Return what gives typical regions of an image, of a model with graphs that look at some."""
    rule = postprocessing_of(task_of(model))
    if not isinstance(model, DenseModel) or not isinstance(rule, TwoStageRule):
        return None
    return partial(best_regions, config=model.config, rule=rule)


def lowering_job(
    model: ReferenceModel,
    edge: EdgeModel,
    recipe: Recipe,
    quantization: ProgramQuantization | None = None,
) -> LoweringJob:
    """Quantise and trace an edge model, and gather the facts for its files and manifest.

    Parameters
    ----------
    model : SepViT or DenseModel
        The reference.
    edge : EdgeModel
        Its edge form; quantised in place.
    recipe : Recipe
        Target, precision and options.
    quantization : ProgramQuantization, optional
        Integers and scales of an int8 package.
    """
    program = trace(edge) if quantization is None else quantization.program(edge)
    return LoweringJob(
        program=program,
        outputs=(*edge.output_names, *edge.tap_names),
        recipe=recipe,
        labels=model.config.labels,
        model=model_facts(model, edge),
        input=input_facts(model, edge),
        results=output_facts(model, edge),
        task=task_of(model),
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


def lower_regions(
    model: ReferenceModel,
    job: LoweringJob,
    quantization: ProgramQuantization | None,
    folder: Path,
) -> tuple[GraphFacts, ...] | None:
    """Lower the graphs behind the first one, each into the folder of its name.

    Parameters
    ----------
    model : SepViT or DenseModel
        The reference.
    job : LoweringJob
        The first graph's.
    quantization : ProgramQuantization, optional
        Integers and scales of an int8 package.
    folder : Path
        The package's folder.

    Returns
    -------
    tuple of GraphFacts or None
        None for a model of one graph.
    """
    graphs = region_models(model) if isinstance(model, DenseModel) else []
    found = []
    for graph in graphs:
        job.step(f"lowering {graph.name} to {job.recipe.target}")
        program = trace(graph) if quantization is None else quantization.program(graph)
        tensor, results = region_facts(graph)
        own = replace(
            job, program=program, outputs=graph.output_names, input=tensor, results=results
        )
        (folder / graph.name).mkdir()
        placement = get_backend(job.recipe.target).lower(own, folder / graph.name)
        found.append(
            GraphFacts(
                name=graph.name,
                input=tensor,
                outputs=list(results),
                macs=macs_by_operation(program).total(),
                placement=placement,
            )
        )
    return tuple(found) or None


def make_manifest(
    job: LoweringJob,
    installed: str,
    source: SourceFacts,
    placement: Placement,
    graphs: tuple[GraphFacts, ...] | None = None,
) -> Manifest:
    """Describe a package whose files and parity are not known yet."""
    runtime = RUNTIMES[job.recipe.target]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        digest="0" * 64,
        task=job.task,
        model=job.model,
        input=job.input,
        outputs=list(job.results),
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
        | versions_used(runtime.tools)
        | ({runtime.toolkit.distribution: runtime.toolkit.version} if runtime.toolkit else {}),
        recipe=job.recipe.model_dump(mode="json"),
        source=source,
        files=[],
        placement=placement,
        verification=get_backend(job.recipe.target).verification(),
        parity=None,
        postprocessing=postprocessing_of(job.task),
        graphs=graphs,
    )


def seal(manifest: Manifest, folder: Path) -> None:
    """Write the manifest, with the digest of every file that the folder holds."""
    write_manifest(manifest.model_copy(update={"files": list_files(folder)}), folder)
