"""Twins of a package: the same model, tapped or in fp32, lowered for as long as it is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..backends.interface import LoweringJob
from ..backends.registry import RUNTIMES, get_backend
from ..backends.versions import check_runtime
from ..checkpoints.source import source_of
from ..config.recipe import Recipe, find_recipe
from ..model.create import ReferenceModel
from ..model.edge import EdgeModel, find_form
from ..model.edge.make import edge_model
from ..package.folder import Package, write_labels
from ..package.manifest import source_facts
from ..package.session import PackageSession
from ..quantization.interface import ProgramQuantization
from .lowering import lower_regions, lowering_job, make_manifest, quantization_for, seal


def run_twin(
    model: ReferenceModel,
    recipe: Recipe,
    pixels: np.ndarray,
    edge: EdgeModel | None = None,
    quantization: ProgramQuantization | None = None,
) -> dict[str, np.ndarray]:
    """Lower a twin of a package that also outputs every part's result, and run it.

    Parameters
    ----------
    model : SepViT or DenseModel
        The reference.
    recipe : Recipe
        The package's.
    pixels : numpy.ndarray
        uint8 (1, H, W, 3), preprocessed.
    edge : EdgeModel, optional
        The edge form to lower. Default: the tapped one of `model`.
    quantization : ProgramQuantization, optional
        Integers and scales of an int8 twin. Default: the model's own, or calibrated on built-in
        images.

    Returns
    -------
    dict
        Outputs by name: ``logits``, ``stages.0.patch_embedding``, ``stages.0.blocks.0.dsa`` ...
    """
    if edge is None:
        edge = edge_model(model, 1, find_form(recipe.edge.form), taps=True)
    if recipe.precision == "int8" and quantization is None:
        quantization = quantization_for(model, recipe)
    job = lowering_job(model, edge, recipe, quantization)
    with tempfile.TemporaryDirectory() as scratch:
        package = _lower_unchecked(model, job, quantization, Path(scratch))
        outputs = PackageSession(package).run_pixels(pixels)
    return dict(zip(job.outputs, outputs, strict=True))


def _lower_unchecked(
    model: ReferenceModel,
    job: LoweringJob,
    quantization: ProgramQuantization | None,
    folder: Path,
) -> Package:
    """Lower into a folder, as a package without golden vectors and parity."""
    installed = check_runtime(RUNTIMES[job.recipe.target])
    placement = get_backend(job.recipe.target).lower(job, folder)
    graphs = lower_regions(model, job, quantization, folder)
    write_labels(job.labels, folder)
    source = source_facts(source_of(model))
    seal(make_manifest(job, installed, source, placement, graphs), folder)
    return Package(folder)


@contextmanager
def float_twin(model: ReferenceModel, package: Package) -> Iterator[Package]:
    """Lower a package's model in fp32 for the same target; it exists while the block runs.

    Parameters
    ----------
    model : SepViT or DenseModel
        The reference that the package was made from.
    package : Package
        An int8 one.
    """
    manifest = package.manifest
    recipe = find_recipe(manifest.target, "fp32")
    edge = edge_model(model, manifest.input.shape[0], find_form(recipe.edge.form))
    with tempfile.TemporaryDirectory() as scratch:
        yield _lower_unchecked(model, lowering_job(model, edge, recipe), None, Path(scratch))
