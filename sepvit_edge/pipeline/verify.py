"""Rebuilding a package from its manifest, to compare all bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ..backends.support.cache import fresh
from ..checkpoints.builtin import builtin_checkpoints
from ..checkpoints.choose import random_dense, random_model
from ..checkpoints.files import load_checkpoint
from ..checkpoints.source import weights_digest
from ..config.recipe import parse_recipe
from ..data.choose import BUILT_IN, open_dataset
from ..data.dense.choose import DENSE_BUILT_IN
from ..errors import CheckFailed, SepViTError
from ..files import file_sha256
from ..model.create import ReferenceModel
from ..model.dense import DenseConfig
from ..model.variants import VARIANTS
from ..package.folder import Package, compare_packages
from ..package.manifest import SCHEMA_VERSION
from .export import export_package
from .facts import config_of


def reference_of(package: Package, weights: str | Path | None = None) -> ReferenceModel:
    """Find the reference model that a package was made from.

    Parameters
    ----------
    package : Package
        Its manifest holds the digest of the weights.
    weights : str or Path, optional
        The checkpoint, or ``"random"`` for seeded random weights. Default: the built-in checkpoint
        with that digest.

    Raises
    ------
    SepViTError
        If no built-in checkpoint has the digest, or the one given holds other weights.
    """
    source = package.manifest.source
    weights = known_weights(package) if weights is None else weights
    if weights is None:
        raise SepViTError(
            f"{package.path} was not made from built-in weights; give its checkpoint with --weights"
        )
    model = _model_of(package, weights)
    if weights_digest(model) != source.weights_sha256:
        raise SepViTError(f"{package.path} was not made from the weights in {weights}")
    return model


def _model_of(package: Package, weights: str | Path) -> ReferenceModel:
    """Load weights by a package's configuration."""
    facts, config = package.manifest.model, config_of(package.manifest, package.labels)
    if isinstance(config, DenseConfig):
        if str(weights) == "random":
            return random_dense(config)
        return load_checkpoint(
            weights,
            labels=package.labels,
            task=config.task,
            head=config.head,
            input_size=config.input_size,
            window=config.window,
        )
    if str(weights) == "random":
        return random_model(facts.variant, facts.num_classes, facts.image_size, package.labels)
    return load_checkpoint(weights, labels=package.labels, image_size=facts.image_size)


def known_weights(package: Package) -> str | Path | None:
    """Find a package's weights without being told.

    Returns
    -------
    Path, str or None
        The built-in checkpoint with the digest that the manifest states, or ``"random"`` for
        seeded random weights of a variant that this version knows; None for all others.
    """
    digest = package.manifest.source.file_sha256
    if digest is None:
        name, _, _ = package.manifest.model.variant.partition("-")  # numbers behind it are depths
        return "random" if name in VARIANTS else None
    found = (path for path in builtin_checkpoints().values() if file_sha256(path) == digest)
    return next(found, None)


def verify_package(
    path: str | Path,
    weights: str | Path | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    step: Callable[[str], None] = lambda _: None,
    classes: str | Path = "",
) -> None:
    """Rebuild a package from its recipe and weights, and compare all bytes.

    Parameters
    ----------
    path : str or Path
        The package.
    weights : str or Path, optional
        Its checkpoint, if that is not built in.
    data : str or Path, optional
        The folder of images for parity, if those are not built in.
    calibration : str or Path, optional
        The folder of calibration images, if those are not built in.
    step : callable
        Called with the name of each step, for a progress display.
    classes : str or Path
        File that gives each folder of `data` its label.

    Raises
    ------
    CheckFailed
        If a file differs; the first one is named.
    SepViTError
        If the weights or the data are not the ones that the package was made with.
    """
    package = Package(path)
    manifest = package.manifest
    if manifest.schema_version != SCHEMA_VERSION:
        raise SepViTError(
            f"{path} has manifest version {manifest.schema_version}, this version of sepvit-edge "
            f"writes {SCHEMA_VERSION}: verify it with the version that made it"
        )
    recipe = parse_recipe(manifest.recipe)
    step("loading the weights")
    model = reference_of(package, weights)
    images = manifest.parity.images if manifest.parity else None
    dataset = open_dataset(data, package.labels, classes=classes) if data else None
    built_in = tuple(f"{name}/" for name in (*BUILT_IN, *DENSE_BUILT_IN))
    if dataset is None and manifest.parity and not manifest.parity.data.startswith(built_in):
        raise SepViTError(f"give the folder {manifest.parity.data} with --data to verify {path}")
    with tempfile.TemporaryDirectory() as scratch, fresh(package.path):
        again = Path(scratch) / "package"
        export_package(
            model,
            output=again,
            recipe=recipe,
            batch=manifest.input.shape[0],
            data=dataset,
            images=images,
            calibration=open_dataset(calibration, None) if calibration else None,
            step=step,
        )
        step("comparing")
        try:
            compare_packages(package.path, again)
        except CheckFailed as error:
            now = Package(again).manifest
            changed = [
                f"{name} was {manifest.versions.get(name, 'missing')} and is {version}"
                for name, version in now.versions.items()
                if manifest.versions.get(name) != version
            ]
            raise CheckFailed("; ".join([str(error), *changed])) from None
