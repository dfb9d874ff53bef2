"""From a model to a package: edge form, lowering, golden vectors, parity, manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from ..backends.interface import LoweringJob
from ..backends.registry import RUNTIMES, get_backend
from ..backends.support.cache import fresh
from ..backends.versions import check_runtime, versions_used
from ..checkpoints.builtin import builtin_checkpoints
from ..checkpoints.choose import random_model
from ..checkpoints.files import load_checkpoint, source_of, weights_digest
from ..config.recipe import Precision, Recipe, find_recipe
from ..data.choose import BUILT_IN, open_dataset
from ..data.digits import Digits
from ..data.glyphs import Glyphs
from ..data.overlap import refuse_overlap
from ..data.preprocess import preprocess
from ..data.sample import Dataset, Unlabelled
from ..errors import CheckFailed, SepViTError
from ..files import file_sha256
from ..model.edge import EdgeModel, EdgeOptions
from ..model.graph import trace
from ..model.logits import reference_logits, torch_threads
from ..model.reference import SepViT, count_macs, count_parameters
from ..model.variants import find_variant
from ..package.folder import (
    Package,
    check_destination,
    compare_packages,
    list_files,
    replacing,
    write_manifest,
)
from ..package.manifest import (
    GOLDEN,
    LABELS,
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
    source_facts,
)
from ..package.session import PackageSession
from ..quantization import (
    FullQuantization,
    Quantization,
    apply_quantization,
    calibrate,
    calibrate_full,
)
from ..quantization.full_int8 import quantized_program
from ..quantization.scheme import choose_float
from . import parity

# What an export without labelled data measures parity on: enough for the distance of the logits.
UNLABELLED_IMAGES = 32
# Ten a class; `evaluate` takes all of them.
GLYPHS_IMAGES = 620
_TOOLS = ("numpy", "pillow", "sepvit-edge", "torch")


def export_package(
    model: SepViT,
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
    step: Callable[[str], None] = lambda _: None,
) -> Package:
    """Export a model, check the result and write it as a package.

    Parameters
    ----------
    model : SepViT
        The reference; its configuration goes into the package.
    target : str
        The runtime.
    precision : str, optional
        ``"fp32"``, ``"fp16"`` or ``"int8"``, as far as the target has it; int8 unless given where
        the model is quantisation-aware, else fp32.
    output : str or Path, optional
        The folder; ``packages/<variant>-<target>-<precision>`` unless given.
    recipe : Recipe, optional
        In place of the one that the target has for the precision.
    batch : int
        Images a call, fixed in the package.
    data : Dataset, optional
        What parity is measured on; built-in images unless given.
    images : int, optional
        At most so many of them.
    calibration : Dataset, optional
        What a model that is not quantisation-aware is calibrated on for int8; built-in images
        unless given.
    force : bool
        Replace an existing package.
    step : callable
        Told what is being done, for a progress display.

    Returns
    -------
    Package
        Complete, checked and in its place.

    Raises
    ------
    SepViTError
        On bad input; nothing is written then.
    CheckFailed
        If the result breaks the recipe's placement budget, or computes something else.
    """
    recipe = recipe or find_recipe(target, precision or default_precision(model))
    destination = Path(output) if output else default_output(model, recipe)
    check_destination(destination, force)
    if batch < 1:
        raise SepViTError(f"a batch has at least one image, not {batch}")
    backend = get_backend(recipe.target)
    runtime = RUNTIMES[recipe.target]
    if runtime.toolkit is not None:
        runtime.toolkit.make(step)
    installed = check_runtime(runtime)
    images = images or recipe.parity_images
    data, images = (data, images) if data else default_data(model, images)
    model = model.eval()

    quantization = None
    if recipe.precision == "int8":
        step("quantising")
        quantization = quantization_for(model, recipe, calibration)
        if not quantization.trained:
            _refuse_calibrated(data, calibration or default_calibration(model))
    step("computing the edge form")
    edge = EdgeModel(model, batch, EdgeOptions(**recipe.edge.model_dump()))
    job = replace(lowering_job(model, edge, recipe, quantization), step=step)
    with replacing(destination, force) as folder:
        step(f"lowering to {backend.target}")
        placement = backend.lower(job, folder)
        check_placement(placement, recipe)
        (folder / LABELS).write_text("\n".join(job.labels) + "\n", encoding="utf-8")
        manifest = make_manifest(job, installed, source_facts(source_of(model)), placement)
        _write(manifest, folder)
        measured = None
        with torch_threads(1):
            if manifest.verification == "compiled":
                _write_golden(model, None, folder)
            else:
                step("running the golden vectors")
                session = PackageSession(Package(folder), threads=1)
                _write_golden(model, session, folder)
                step(f"measuring parity on {data.name}")
                measured = parity.measure(session, model, data, images, quantization=quantization)
                del session  # ExecuTorch changes its number of threads only while none is loaded
                parity.check(measured, recipe.precision)
        _write(manifest.model_copy(update={"parity": measured}), folder)
    return Package(destination)


def default_precision(model: SepViT) -> Precision:
    """int8 where the model is quantisation-aware, else fp32."""
    return "fp32" if model.quantization is None else "int8"


def quantization_for(
    model: SepViT, recipe: Recipe, calibration: Dataset | None = None
) -> Quantization | FullQuantization:
    """Return the int8 layers of a package: the model's own, or calibrated ones.

    Where the recipe wants every operation in integers, calibrated grids of all tensors.

    Parameters
    ----------
    model : SepViT
        The reference.
    recipe : Recipe
        States what stays float, and how many images to calibrate on.
    calibration : Dataset, optional
        Built-in images unless given.

    Raises
    ------
    SepViTError
        If a pattern of the recipe matches no layer.
    """
    options = recipe.quantization
    own = model.quantization
    full = options.scheme == "full"
    if full and options.keep_float:
        raise SepViTError("full int8 leaves no layer in float: leave --keep-float out")
    if full or own is None:
        data, images = calibration or default_calibration(model), options.calibration_images
        with torch_threads(1):
            if full:
                edge = EdgeOptions(**recipe.edge.model_dump())
                return calibrate_full(model, data, edge, images=images)
            return calibrate(model, data, images=images, keep_float=options.keep_float)
    floats = choose_float([*own.layers, *own.float_layers], options.keep_float)
    layers = {name: layer for name, layer in own.layers.items() if name not in floats}
    return replace(own, layers=layers, float_layers={**own.float_layers, **floats})


def default_calibration(model: SepViT) -> Dataset:
    """Built-in calibration images: of what the model was trained on, where that is known."""
    if model.source is not None and model.source.trained_on == "glyphs/train":
        return Glyphs("calibration")
    return Digits("calibration")


def _refuse_calibrated(data: Dataset, calibration: Dataset) -> None:
    # Splits of glyphs differ by their fonts; to hash them all takes seconds.
    if not data.name.startswith("glyphs/"):
        refuse_overlap(data, calibration, "calibration")


def lowering_job(
    model: SepViT,
    edge: EdgeModel,
    recipe: Recipe,
    quantization: Quantization | FullQuantization | None = None,
) -> LoweringJob:
    """Quantise and trace an edge model, and state the facts that go into files and manifest."""
    config = model.config
    interleaved = edge.options.input == "uint8-nhwc"
    if isinstance(quantization, FullQuantization):
        program = quantized_program(edge, quantization)
    else:
        if quantization is not None:
            apply_quantization(edge, quantization)
        program = trace(edge)
    return LoweringJob(
        program=program,
        outputs=("logits", *edge.tap_names),
        recipe=recipe,
        labels=config.labels,
        model=ModelFacts(
            variant=config.variant,
            name=find_variant(config.variant).name,
            num_classes=config.num_classes,
            image_size=config.image_size,
            parameters=count_parameters(model),
            macs=count_macs(model),
        ),
        input=InputFacts(
            name="pixels",
            shape=list(edge.example_input().shape),
            dtype="uint8" if interleaved else "float32",
            layout="NHWC" if interleaved else "NCHW",
            resize_shorter_side=config.preprocessing.resize_side(config.image_size),
            crop_size=config.image_size,
            **asdict(config.preprocessing),
        ),
        quantization=None if quantization is None else _quantization_facts(quantization),
    )


def _quantization_facts(quantization: Quantization | FullQuantization) -> QuantizationFacts:
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
    """State what a package is, before its files and its parity are known."""
    runtime = RUNTIMES[job.recipe.target]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        digest="0" * 64,
        model=job.model,
        input=job.input,
        output=OutputFacts(name="logits", shape=[job.input.shape[0], job.model.num_classes]),
        target=job.recipe.target,
        precision=job.recipe.precision,
        quantization=job.quantization,
        runtime=RuntimeFacts(
            name=runtime.distribution,
            version=installed,
            minimum=runtime.minimum,
            below=runtime.below,
        ),
        versions=versions_used(_TOOLS)
        | {runtime.distribution: installed}
        | versions_used(runtime.tools),
        recipe=job.recipe,
        source=source,
        files=[],
        placement=placement,
        verification=get_backend(job.recipe.target).verification(),
        parity=None,
    )


def run_twin(
    model: SepViT,
    recipe: Recipe,
    pixels: np.ndarray,
    edge: EdgeModel | None = None,
    calibration: Dataset | None = None,
) -> dict[str, np.ndarray]:
    """Lower a twin of a package, with every part's output tapped, and run it.

    Parameters
    ----------
    model : SepViT
        The reference.
    recipe : Recipe
        Of the package.
    pixels : numpy.ndarray
        uint8 (1, image_size, image_size, 3).
    edge : EdgeModel, optional
        The edge form to lower; the tapped one of `model` unless given.
    calibration : Dataset, optional
        As for the package.

    Returns
    -------
    dict
        Outputs by name: ``logits``, ``stages.0.patch_embedding``, ``stages.0.blocks.0.dsa`` ...
    """
    if edge is None:
        edge = EdgeModel(model, 1, EdgeOptions(**recipe.edge.model_dump()), taps=True)
    int8 = recipe.precision == "int8"
    quantization = quantization_for(model, recipe, calibration) if int8 else None
    job = lowering_job(model, edge, recipe, quantization)
    with tempfile.TemporaryDirectory() as scratch:
        outputs = PackageSession(_unchecked(model, job, Path(scratch))).run_pixels(pixels)
    return dict(zip(job.outputs, outputs, strict=True))


def _unchecked(model: SepViT, job: LoweringJob, folder: Path) -> Package:
    """Lower into a folder of one's own, as a package without golden vectors and parity."""
    installed = check_runtime(RUNTIMES[job.recipe.target])
    placement = get_backend(job.recipe.target).lower(job, folder)
    _write(make_manifest(job, installed, source_facts(source_of(model)), placement), folder)
    return Package(folder)


@contextmanager
def float_twin(model: SepViT, package: Package) -> Iterator[Package]:
    """Lower a package's model in fp32 for the same target, for as long as the block lasts.

    Parameters
    ----------
    model : SepViT
        The reference that the package was made from.
    package : Package
        An int8 one.
    """
    manifest = package.manifest
    recipe = find_recipe(manifest.target, "fp32")
    edge = EdgeModel(model, manifest.input.shape[0], EdgeOptions(**recipe.edge.model_dump()))
    with tempfile.TemporaryDirectory() as scratch:
        yield _unchecked(model, lowering_job(model, edge, recipe), Path(scratch))


def reference_of(package: Package, weights: str | Path | None = None) -> SepViT:
    """Find the reference model that a package was made from.

    Parameters
    ----------
    package : Package
        Whose manifest names the weights by digest.
    weights : str or Path, optional
        The checkpoint, ``"random"`` for seeded random weights; looked for among the built-in ones
        unless given.

    Raises
    ------
    SepViTError
        If the checkpoint is not built in and none was given, or it holds other weights.
    """
    facts, source = package.manifest.model, package.manifest.source
    if weights is None:
        for path in builtin_checkpoints().values():
            if file_sha256(path) == source.file_sha256:
                weights = path
    if weights is None and source.file_sha256 is None:
        weights = "random"
    if weights is None:
        raise SepViTError(
            f"{package.path} was not made from built-in weights; give its checkpoint by --weights"
        )
    if str(weights) == "random":
        model = random_model(facts.variant, facts.num_classes, facts.image_size, package.labels)
    else:
        model = load_checkpoint(weights, labels=package.labels, image_size=facts.image_size)
    if weights_digest(model) != source.weights_sha256:
        raise SepViTError(f"{package.path} was not made from the weights in {weights}")
    return model


def verify_package(
    path: str | Path,
    weights: str | Path | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> None:
    """Rebuild a package from its recipe and weights, and compare all bytes.

    Parameters
    ----------
    path : str or Path
        The package.
    weights : str or Path, optional
        Its checkpoint, where that is not built in.
    data : str or Path, optional
        What its parity was measured on, where that is not built in.
    calibration : str or Path, optional
        What it was calibrated on, where that is not built in.
    step : callable
        Told what is being done.

    Raises
    ------
    CheckFailed
        Naming the first file that differs.
    SepViTError
        If the weights or the data are not those that it was made with.
    """
    package = Package(path)
    manifest = package.manifest
    step("loading the weights")
    model = reference_of(package, weights)
    images = manifest.parity.images if manifest.parity else None
    dataset = open_dataset(data, package.labels) if data else None
    built_in = tuple(f"{name}/" for name in BUILT_IN)
    if dataset is None and manifest.parity and not manifest.parity.data.startswith(built_in):
        raise SepViTError(f"give the folder {manifest.parity.data} by --data to verify {path}")
    with tempfile.TemporaryDirectory() as scratch, fresh(package.path):
        again = Path(scratch) / "package"
        export_package(
            model,
            output=again,
            recipe=manifest.recipe,
            batch=manifest.input.shape[0],
            data=dataset,
            images=images,
            calibration=open_dataset(calibration, package.labels) if calibration else None,
            step=step,
        )
        step("comparing")
        try:
            compare_packages(package.path, again)
        except CheckFailed as error:
            now = Package(again).manifest
            other = [
                f"{name} {manifest.versions.get(name)} then and {version} now"
                for name, version in now.versions.items()
                if manifest.versions.get(name) != version
            ]
            raise CheckFailed(f"{error}{'; it has ' if other else ''}{', '.join(other)}") from None


def default_output(model: SepViT, recipe: Recipe) -> Path:
    """Where a package goes unless told otherwise."""
    return Path("packages") / f"{model.config.variant}-{recipe.target}-{recipe.precision}"


def default_data(model: SepViT, images: int | None = None) -> tuple[Dataset, int | None]:
    """Built-in images that a model was not trained on, and how many to take.

    With labels where the model was trained on the built-in set, else without.
    """
    digits = Digits("test")
    trained_on = model.source.trained_on if model.source is not None else None
    if trained_on == "digits/train":
        return digits, images
    if trained_on == "glyphs/train":
        return Glyphs("test"), images or GLYPHS_IMAGES
    return Unlabelled(digits), images or UNLABELLED_IMAGES


def check_placement(placement: Placement, recipe: Recipe) -> None:
    """Hold a placement against its recipe's budget.

    Raises
    ------
    CheckFailed
        Naming the first operations outside, their blocks and the likely reasons.
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
        faults.append(f"{inside:.1%} of the MACs are inside, not {budget.min_macs_share:.1%}")
    if faults:
        named = "; ".join(f"{o.name} ({o.part}): {o.reason}" for o in outside[:5])
        raise CheckFailed(f"the placement budget is broken: {'; '.join(faults)}. First: {named}")


def _write(manifest: Manifest, folder: Path) -> None:
    write_manifest(manifest.model_copy(update={"files": list_files(folder)}), folder)


def golden_images() -> list[Image.Image]:
    """Real images of different sizes and modes that every package carries.

    Two handwritten digits (8 x 8, grey), and pieces of scikit-learn's two sample photographs
    (china.jpg by Yann and flower.jpg by dany13, both CC BY 2.0).
    """
    from sklearn.datasets import load_sample_images

    digits = Digits("test")
    china, flower = (Image.fromarray(i) for i in load_sample_images().images)
    transparent = flower.crop((150, 40, 310, 130)).convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    return [
        digits[0].image,
        digits[1].image.resize((37, 53), Image.Resampling.BICUBIC).convert("RGB"),
        china.crop((100, 60, 420, 300)),
        flower.crop((200, 0, 350, 401)),
        china.crop((0, 180, 640, 240)).convert("L"),
        transparent,
    ]


def _write_golden(model: SepViT, session: PackageSession | None, folder: Path) -> None:
    """Write the golden vectors; of a package that nothing here can run, the reference's alone."""
    config = model.config
    images = golden_images()
    tensors = {f"image.{i}": np.asarray(image) for i, image in enumerate(images)}
    pixels = np.stack([preprocess(i, config.preprocessing, config.image_size) for i in images])
    tensors["pixels"] = pixels
    tensors["reference_logits"] = reference_logits(model, pixels)
    if session is not None:
        tensors["package_logits"] = session.run_pixels(pixels)[0]
    notice = "photographs: china.jpg by Yann, flower.jpg by dany13, CC BY 2.0, cropped"
    save_file(tensors, folder / GOLDEN, {"images": notice})
    (folder / GOLDEN).chmod(0o644)  # safetensors makes it private; apps and devices read it too
