"""Export a model as a package: `python -m sepvit_edge.export --target openvino`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, emit_json, parity_rows, print_columns, print_table, steps

if TYPE_CHECKING:
    from .config.recipe import Recipe
    from .data.sample import Dataset
    from .model.reference import SepViT
    from .package.folder import Package
    from .package.manifest import Manifest
    from .profiling.latency import Latency


@command
def main(
    target: Annotated[
        str,
        typer.Option(help="The runtime, for example openvino; all: each but those for NPUs."),
    ] = "",
    recipe: Annotated[str, typer.Option(help="A recipe's name in export/, or a TOML file.")] = "",
    variant: Annotated[str, typer.Option(help="lite, t, s or b.")] = "",
    weights: Annotated[
        str, typer.Option(help="A checkpoint, a built-in one's name, or 'random'.")
    ] = "",
    labels: Annotated[str, typer.Option(help="A file of class names, or 'imagenet'.")] = "",
    image_size: Annotated[
        int | None,
        typer.Option(help="Side in pixels, a multiple of 32; the checkpoint's own unless given."),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "",
    batch: Annotated[int, typer.Option(help="Images a call, fixed in the package.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Default: packages/VARIANT-TARGET-PRECISION.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="What parity is measured on: a folder or a built-in set.")
    ] = "",
    images: Annotated[int | None, typer.Option(help="At most so many images of it.", min=1)] = None,
    calibration: Annotated[
        str, typer.Option(help="Images to calibrate int8 on: a folder or a built-in set.")
    ] = "",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(help="Layers to leave in float, as 'stages.0.*'; can be repeated."),
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="PACKAGE", help="Rebuild a package, compare all bytes.")
    ] = None,
    toolkit_env: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Where a tool chain that needs a virtual environment of its own (rockchip) has "
            "it; made if it is not there. Default: the user's cache folder.",
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing package.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Export a checkpoint as a package that is checked, measured and reproducible.

    Without options: the built-in SepViT weights, for OpenVINO, checked on images that they were
    not trained on. Quantisation-aware weights become int8 packages unless --precision says
    otherwise.
    """
    from .backends.support import toolkit
    from .checkpoints.choose import choose_model
    from .pipeline.verify import verify_package

    if toolkit_env:
        os.environ[toolkit.VARIABLE] = toolkit_env
    if verify is not None:
        with steps() as step:
            verify_package(verify, weights or None, data or None, calibration or None, step)
        if json:
            emit_json({"package": str(verify), "identical": True})
        else:
            print_table(str(verify), [("rebuilt", "identical, byte for byte")])
        return
    wanted = Wanted(
        weights,
        variant,
        labels,
        image_size,
        batch,
        data,
        images,
        calibration,
        tuple(keep_float or ()),
        force,
    )
    if target == "all":
        _export_all(wanted, recipe, precision, output, json)
        return
    choose_recipe(recipe, target, precision)  # refuses what does not exist before it loads anything
    with steps() as step:
        step("loading the weights")
        model = choose_model(weights, variant, labels, image_size)
        chosen = choose_recipe(recipe, target, precision, model, wanted.keep_float)
        package, latency = export_one(wanted, model, chosen, output, step)
    if json:
        emit_json(_document(package, latency))
    else:
        print_table(str(package.path), summary(package, latency))


@dataclass(frozen=True)
class Wanted:
    """The options that do not depend on the target."""

    weights: str
    variant: str
    labels: str
    image_size: int | None
    batch: int
    data: str
    images: int | None
    calibration: str
    keep_float: tuple[str, ...]
    force: bool


def export_one(
    wanted: Wanted,
    model: SepViT,
    recipe: Recipe,
    output: Path | None,
    step: Callable[[str], None],
) -> tuple[Package, Latency | None]:
    """Export a model by a recipe and take a first look at its latency, where it runs here."""
    from .data.choose import open_dataset
    from .package.folder import check_destination
    from .package.session import PackageSession
    from .pipeline.defaults import default_output
    from .pipeline.export import export_package
    from .pipeline.twins import float_twin
    from .profiling.latency import available_threads, measure_latency, measure_speedup

    destination = output or default_output(model, recipe)
    check_destination(destination, wanted.force)
    package = export_package(
        model,
        output=destination,
        recipe=recipe,
        batch=wanted.batch,
        data=open_dataset(wanted.data, model.config.labels) if wanted.data else None,
        images=wanted.images,
        calibration=calibration_data(wanted.calibration, model, recipe),
        force=wanted.force,
        step=step,
    )
    if package.manifest.verification != "run":
        return package, None
    step("timing it")
    threads = available_threads()
    session = PackageSession(package, threads)
    latency = measure_latency(session, threads)
    if recipe.precision == "int8":
        step("timing the same model in fp32 beside it")
        with float_twin(model, package) as other:
            speedup = measure_speedup(session, PackageSession(other, threads))
        latency = replace(latency, over_fp32=speedup)
    return package, latency


def _export_all(
    wanted: Wanted, recipe: str, precision: str, output: Path | None, json: bool
) -> None:
    from .backends.registry import MissingRuntime, get_backend, host_targets
    from .checkpoints.choose import choose_model
    from .errors import SepViTError
    from .package.folder import check_destination
    from .pipeline.defaults import default_output

    if recipe:
        raise SepViTError("--recipe names one target; leave it out with --target all")
    done: list[tuple[Package, Latency | None]] = []
    missing: dict[str, str] = {}
    with steps() as step:
        step("loading the weights")
        model = choose_model(wanted.weights, wanted.variant, wanted.labels, wanted.image_size)
        recipes = [
            choose_recipe("", target, precision, model, wanted.keep_float)
            for target in host_targets()
        ]
        folders = [default_output(model, chosen) for chosen in recipes]
        if output is not None:
            folders = [output / folder.name for folder in folders]
        if not wanted.force:  # before the first long export, not after it
            for folder in folders:
                check_destination(folder, False)
        for chosen, folder in zip(recipes, folders, strict=True):
            try:
                get_backend(chosen.target)
            except MissingRuntime as error:
                missing[chosen.target] = str(error)
                continue

            def prefixed(text: str, target: str = chosen.target) -> None:
                step(f"{target}: {text}")

            done.append(export_one(wanted, model, chosen, folder, prefixed))
    if json:
        emit_json({"packages": [_document(*one) for one in done], "missing": missing})
        return
    header = [
        "target",
        "precision",
        "MB",
        "SQNR dB",
        "agreement",
        "top-1",
        "outside",
        "p50 ms",
        "over fp32",
    ]
    rows = []
    for package, latency in done:
        manifest = package.manifest
        parity = manifest.parity
        distance = ["-", "-", "-"]
        if parity is not None:
            top1 = "-" if parity.top1_package is None else f"{parity.top1_package:.2%}"
            distance = [f"{parity.sqnr_db:.1f}", f"{parity.top1_agreement:.1%}", top1]
        rows.append(
            [
                manifest.target,
                manifest.precision,
                f"{package.size / 1e6:.2f}",
                *distance,
                str(len(manifest.placement.outside)),
                f"{latency.p50_ms:.2f}" if latency else manifest.verification,
                f"{latency.over_fp32.ratio:.2f}" if latency and latency.over_fp32 else "-",
            ]
        )
    rows += [[target, sentence] for target, sentence in missing.items()]
    print_columns(header, rows)


def _document(package: Package, latency: Latency | None) -> dict[str, object]:
    return {
        "package": str(package.path),
        "manifest": package.manifest.model_dump(mode="json"),
        "latency": asdict(latency) if latency else None,
    }


def choose_recipe(
    recipe: str,
    target: str,
    precision: str,
    model: SepViT | None = None,
    keep_float: tuple[str, ...] = (),
) -> Recipe:
    """Return the recipe that the options name; of no precision, the model's own.

    Raises
    ------
    SepViTError
        If there is none, or the options contradict each other.
    """
    from .config.recipe import find_recipe, load_recipe
    from .errors import SepViTError
    from .pipeline.defaults import default_precision

    if recipe:
        chosen = load_recipe(recipe)
        for option, given, stated in (
            ("--target", target, chosen.target),
            ("--precision", precision, chosen.precision),
        ):
            if given and given != stated:
                raise SepViTError(
                    f"{option} {given} contradicts --recipe {recipe}, which has {stated}"
                )
    else:
        own = default_precision(model) if model is not None else None
        chosen = find_recipe(target or "openvino", precision or own)
    if not keep_float or model is None:
        return chosen
    if chosen.precision != "int8":
        raise SepViTError(f"--keep-float is for int8, this package is {chosen.precision}")
    kept = (*chosen.quantization.keep_float, *keep_float)
    options = chosen.quantization.model_copy(update={"keep_float": kept})
    return chosen.model_copy(update={"quantization": options})


def calibration_data(calibration: str, model: SepViT, recipe: Recipe) -> Dataset | None:
    """Return what the option names; say so where nothing fits and it names nothing.

    Raises
    ------
    SepViTError
        If there is no such data, or nothing is to be calibrated.
    """
    from .cli.console import warn
    from .data.choose import open_dataset
    from .data.sample import Unlabelled
    from .errors import SepViTError

    full = recipe.quantization.scheme == "full"
    calibrated = recipe.precision == "int8" and (full or model.quantization is None)
    if calibration:
        if not calibrated:
            why = "they are quantisation-aware" if model.quantization else "it is not int8"
            raise SepViTError(f"--calibration has no use here: {why}")
        return Unlabelled(open_dataset(calibration, model.config.labels, "calibration"))
    if calibrated and (model.source is None or model.source.trained_on is None):
        warn("calibrated on built-in digits; give typical images by --calibration FOLDER")
    return None


# What a verification means, for people.
VERIFICATIONS = {
    "run": "run by the runtime",
    "emulated": "run by the vendor's emulation of the device",
    "reference model": "run by the reference model of the device's instructions",
    "simulated": "run by the vendor's simulator",
    "evaluated": "evaluated operation by operation; the runtime is not for this system",
    "compiled": "compiled, not run",
}


def summary(package: Package, latency: Latency | None) -> list[tuple[str, str]]:
    """Rows of the table that an export ends with."""
    manifest = package.manifest
    model = manifest.model
    shape = " x ".join(str(side) for side in manifest.input.shape)
    rows = [
        ("model", f"{model.name}, {model.num_classes} classes"),
        ("parameters", f"{model.parameters:,}"),
        ("MACs", f"{model.macs / 1e9:.3f} G an image"),
        ("input", f"{manifest.input.dtype} {shape} ({manifest.input.layout}), RGB pixels 0-255"),
        ("precision", precision_text(manifest)),
        ("runtime", f"{manifest.runtime.name} {manifest.runtime.version}"),
        ("", ""),
    ]
    rows += [(file.path, file_size(file.size)) for file in manifest.files]
    rows.append(("", ""))
    for group in manifest.placement.placed:
        share = f"{group.macs_share:.1%} of the MACs"
        rows.append((group.where, f"{group.ops} operations in {group.precision}, {share}"))
    if manifest.placement.outside:
        rows.append(("outside", f"{len(manifest.placement.outside)} operations"))
    rows.append(("", ""))
    if manifest.parity is not None:
        rows += [*parity_rows(manifest.parity), ("", "")]
    if manifest.verification != "run":
        rows.append(("verification", VERIFICATIONS[manifest.verification]))
    for estimate in manifest.placement.estimates:
        value = f"{estimate.value:.4g} {estimate.unit}, estimated by {estimate.source}"
        rows.append((estimate.what, value))
    if latency is None:
        return [*rows, ("latency", "not measured: the device is not here")]
    plural = "s" if latency.threads > 1 else ""
    per = f"{latency.runs} runs, {latency.threads} thread{plural}"
    rows.append(("latency", f"p50 {latency.p50_ms:.2f} ms ({per}, this machine)"))
    if (over := latency.over_fp32) is not None:
        much = f"{over.ratio:.2f} times as fast (p10 {over.p10:.2f}, p90 {over.p90:.2f})"
        slower = "; int8 is SLOWER here, export with --precision fp32" if over.ratio < 1 else ""
        rows.append(("over fp32", f"{much}{slower}"))
    return rows


def precision_text(manifest: Manifest) -> str:
    """Precision, and how int8 came about."""
    facts = manifest.quantization
    if facts is None:
        return manifest.precision
    how = f"calibrated on {facts.calibration_images} images of {facts.calibration_data}"
    how = "quantisation-aware" if facts.trained else how
    kept = f", {len(facts.float_layers)} layers in float" if facts.float_layers else ""
    return f"{manifest.precision}, {how}{kept}"


def file_size(size: int) -> str:
    """Bytes for people."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


if __name__ == "__main__":
    main()
