"""From a model to a package: edge form, lowering, golden vectors, parity, manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..backends.interface import LoweringJob
from ..backends.registry import RUNTIMES, check_dense_target, get_backend
from ..backends.versions import check_runtime
from ..checkpoints.source import source_of
from ..config.recipe import Recipe, find_recipe
from ..data.overlap import refuse_overlap
from ..data.sample import Dataset, Taken, take_evenly, take_spread
from ..errors import CheckFailed, SepViTError
from ..model.create import ReferenceModel
from ..model.dense import DenseModel
from ..model.edge import find_form
from ..model.edge.make import edge_model
from ..model.logits import torch_threads
from ..package.folder import Package, write_labels
from ..package.manifest import Manifest, Parity, Placement, source_facts
from ..package.replacing import check_destination, replacing
from ..package.session import PackageSession
from ..package.signature import SigningKey, sign_folder
from ..quantization.interface import ProgramQuantization
from .defaults import (
    calibration_images,
    default_calibration,
    default_data,
    default_output,
    default_precision,
)
from .dense import measure_dense_parity, write_dense_golden
from .golden import write_golden
from .lowering import lower_regions, lowering_job, make_manifest, quantization_for, seal
from .parity import check_parity, measure_parity


def export_package(
    model: ReferenceModel,
    target: str = "openvino",
    precision: str | None = None,
    output: str | Path | None = None,
    *,
    recipe: Recipe | None = None,
    batch: int = 1,
    data: Dataset | None = None,
    images: int | None = None,
    calibration: Dataset | None = None,
    force: bool = False,
    sign: SigningKey | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Package:
    """Export a model, check the result and write it as a package.

    Parameters
    ----------
    model : SepViT or DenseModel
        The reference; its configuration goes into the package.
    target : str
        The runtime.
    precision : str, optional
        ``"fp32"``, ``"fp16"`` or ``"int8"``, if the target has a recipe for it. Default: int8 for a
        quantisation-aware model, otherwise fp32.
    output : str or Path, optional
        The folder. Default: ``packages/<variant>-<target>-<precision>``.
    recipe : Recipe, optional
        Used in place of the target's own recipe for the precision.
    batch : int
        Number of images in a call, fixed in the package.
    data : Dataset, optional
        Images to measure parity on. Default: built-in ones.
    images : int, optional
        Maximum number of images to measure parity on, taken evenly over the classes.
    calibration : Dataset, optional
        Images to calibrate int8 on, unless the model is quantisation-aware. Default: built-in ones.
    force : bool
        Replace an existing package.
    sign : SigningKey, optional
        Key to sign the package with (`sepvit_edge.package.signature`). Default: not signed.
    step : callable
        Called with the name of each step, for a progress display.

    Returns
    -------
    Package
        Complete, checked and in its place.

    Raises
    ------
    SepViTError
        If an argument is wrong, or the runtime is missing; nothing is written.
    CheckFailed
        If the result breaks the recipe's placement budget, or its logits are too far from the
        reference; nothing is written.

    Examples
    --------
    >>> import sepvit_edge, tempfile
    >>> model = sepvit_edge.create_model("lite", num_classes=10, image_size=64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     package = sepvit_edge.export_package(model, output=f"{folder}/lite", images=4)
    ...     sorted(path.name for path in package.path.iterdir())
    ['golden.safetensors', 'labels.txt', 'manifest.json', 'model.bin', 'model.xml']
    """
    recipe = recipe or find_recipe(target, precision or default_precision(model))
    destination = Path(output) if output else default_output(model, recipe)
    check_destination(destination, force)
    form = find_form(recipe.edge.form)
    if isinstance(model, DenseModel):
        check_dense_target(recipe.target)
    if batch < 1:
        raise SepViTError(f"--batch must be 1 or more, not {batch}")
    get_backend(recipe.target)  # a missing runtime fails before the long steps
    runtime = RUNTIMES[recipe.target]
    if runtime.toolkit is not None:
        runtime.toolkit.make(step)
    installed = check_runtime(runtime)
    images = images or recipe.parity_images
    data, images = (data, images) if data else default_data(model, images)
    taken = take_evenly(data, images)
    model = model.eval()

    quantization = None
    if recipe.precision == "int8":
        step("quantising")
        quantization = quantization_for(model, recipe, calibration)
        if not quantization.trained:
            typical = calibration or default_calibration(model)
            typical = take_spread(typical, calibration_images(model, recipe))
            _refuse_calibrated(taken, typical)
    step("computing the edge form")
    edge = edge_model(model, batch, form)
    job = replace(lowering_job(model, edge, recipe, quantization), step=step)
    with replacing(destination, force) as folder:
        manifest = _lower(model, job, quantization, installed, folder)
        measured = None
        if manifest.verification == "compiled":
            _write_golden(model, None, folder)
        else:
            measured = _run(model, Package(folder), taken, quantization, step)
        seal(manifest.model_copy(update={"parity": measured}), folder)
        if sign is not None:
            sign_folder(folder, sign, destination.name)
    return Package(destination)


def _lower(
    model: ReferenceModel,
    job: LoweringJob,
    quantization: ProgramQuantization | None,
    installed: str,
    folder: Path,
) -> Manifest:
    """Write a package without golden vectors and parity, after a check of the placement."""
    job.step(f"lowering to {job.recipe.target}")
    placement = get_backend(job.recipe.target).lower(job, folder)
    graphs = lower_regions(model, job, quantization, folder)
    for each in (placement, *(graph.placement for graph in graphs or ())):
        check_placement(each, job.recipe)
    write_labels(job.labels, folder)
    manifest = make_manifest(job, installed, source_facts(source_of(model)), placement, graphs)
    seal(manifest, folder)
    return manifest


def _run(
    model: ReferenceModel,
    package: Package,
    data: Taken,
    quantization: ProgramQuantization | None,
    step: Callable[[str], None],
) -> Parity:
    """Run a new package for its golden vectors and for its parity, which is checked."""
    step("running the golden vectors")
    with torch_threads(1):
        session = PackageSession(package, threads=1)
        _write_golden(model, session, package.path)
        step(f"measuring parity on {data.name}")
        if isinstance(model, DenseModel):
            measured = measure_dense_parity(session, model, data, quantization)
        else:
            measured = measure_parity(session, model, data, quantization)
        del session  # ExecuTorch changes its number of threads only while none is loaded
    check_parity(measured, package.manifest.precision)
    return measured


def _write_golden(model: ReferenceModel, session: PackageSession | None, folder: Path) -> None:
    if isinstance(model, DenseModel):
        write_dense_golden(model, session, folder)
    else:
        write_golden(model, session, folder)


def _refuse_calibrated(data: Dataset, calibration: Dataset) -> None:
    """Reject images for parity that are also calibration images."""
    # Splits of glyphs differ by their fonts; to hash them all takes seconds.
    if not data.name.startswith("glyphs/"):
        refuse_overlap(data, calibration, "calibration")


def check_placement(placement: Placement, recipe: Recipe) -> None:
    """Check a placement against its recipe's budget.

    Raises
    ------
    CheckFailed
        If the budget is broken; the first operations outside the target's unit are named, with
        their parts and the likely reasons.
    """
    budget, outside = recipe.placement, placement.outside
    inside = sum(group.macs_share for group in placement.placed if group.accelerated)
    faults = []
    if budget.max_ops_outside is not None and len(outside) > budget.max_ops_outside:
        faults.append(
            f"{len(outside)} operations are outside the target's unit, "
            f"the budget is {budget.max_ops_outside}"
        )
    if budget.min_macs_share is not None and inside < budget.min_macs_share:
        faults.append(
            f"{inside:.1%} of the MACs are inside it, the budget is {budget.min_macs_share:.1%}"
        )
    if faults:
        named = "; ".join(f"{o.name} ({o.part}): {o.reason}" for o in outside[:5])
        raise CheckFailed(f"the placement budget is broken: {'; '.join(faults)}. First: {named}")
