"""Export a model as a package: `python -m sepvit_edge.export --target openvino`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, emit_json, print_columns, print_table, steps
from .cli.options import Classes
from .errors import CheckFailed, Interrupted, SepViTError

if TYPE_CHECKING:
    from .config.recipe import Recipe
    from .model.create import ReferenceModel
    from .package.folder import Package
    from .package.signature import SigningKey
    from .profiling.first_look import FirstLook


@command
def main(
    target: Annotated[
        str,
        typer.Option(help="Runtime, for example openvino; 'all' exports every non-NPU target."),
    ] = "",
    recipe: Annotated[str, typer.Option(help="Name of a recipe in export/, or a TOML file.")] = "",
    variant: Annotated[str, typer.Option(help="lite, t, s or b.")] = "",
    weights: Annotated[
        str,
        typer.Option(
            help="A checkpoint (FILE::KEY: the weights under a key of it), the name of a built-in "
            "one, or 'random'."
        ),
    ] = "",
    labels: Annotated[str, typer.Option(help="File of class names, or 'imagenet'.")] = "",
    image_size: Annotated[
        int | None,
        typer.Option(help="Side in pixels, a multiple of 32. Default: the checkpoint's own."),
    ] = None,
    task: Annotated[
        str, typer.Option(help="classification, segmentation or detection.")
    ] = "classification",
    head: Annotated[
        str,
        typer.Option(
            help="Segmentation: semantic-fpn or upernet; detection: retinanet or mask-rcnn. "
            "Default: the checkpoint's own."
        ),
    ] = "",
    input_size: Annotated[
        str,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Input of segmentation and detection in pixels, multiples of 32, as 480x640, or "
            "512 for a square. Default: the checkpoint's own, or 512x512.",
        ),
    ] = "",
    window: Annotated[
        str,
        typer.Option(
            help="Windows of segmentation and detection: paper (7, maps are padded) or fit (they "
            "divide the maps). Default: the checkpoint's own, or paper."
        ),
    ] = "",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "",
    batch: Annotated[int, typer.Option(help="Images in a call, fixed in the package.", min=1)] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder. Default: packages/VARIANT-TARGET-PRECISION.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="Images to measure parity on: a folder or a built-in set.")
    ] = "",
    classes: Classes = "",
    images: Annotated[
        int | None, typer.Option(help="Maximum number of images for parity.", min=1)
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="Images to calibrate int8 on: a folder or a built-in set.")
    ] = "",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(help="Layers to leave in float, for example 'stages.0.*'; repeatable."),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="PACKAGE", help="Rebuild a package and compare all bytes."),
    ] = None,
    toolkit_env: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Virtual environment of the Rockchip toolchain; created if missing. Default: in "
            "the user's cache folder.",
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing package.")] = False,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Sign the package with a private key on P-256 (PEM)."),
    ] = None,
    sign_until: Annotated[
        str, typer.Option(metavar="DAY", help="Last day of the signature, as 2027-06-30.")
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the times are not trustworthy.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Export a checkpoint as a package that is checked, measured and reproducible.

    Without options: the built-in SepViT weights for OpenVINO, checked on held-out images. The
    precision defaults to int8 for quantisation-aware weights, otherwise to fp32.
    """
    from .backends.support import toolkit
    from .cli.names import check_names, check_targets, check_task
    from .package.signature import load_signing_key

    size = check_task(task, head, input_size, window, weights, image_size, target)
    check_names(
        weights=[weights],
        variant=variant,
        image_sizes=[image_size],
        labels=labels,
        data=[data, calibration],
        classes=classes,
    )
    precisions = [precision] if precision else []
    # Of targets, "all" and the default alone have no recipe of a precision to look for.
    check_targets([target] if target not in ("", "all") else [], precisions, recipe)
    if sign_until and sign is None:
        raise SepViTError("--sign-until is for a signature; give --sign KEY too")
    if sign is not None and verify is not None:
        raise SepViTError("--verify compares a package and signs nothing; leave --sign out")
    key = load_signing_key(sign, sign_until) if sign is not None else None
    if toolkit_env:
        os.environ[toolkit.VARIABLE] = toolkit_env
    if verify is not None:
        _verify(verify, weights, data, classes, calibration, json)
        return

    def load() -> ReferenceModel:
        from .checkpoints.choose import choose_dense, choose_model

        if task == "classification":
            return choose_model(weights, variant, labels, image_size)
        return choose_dense(weights, variant, labels, task, head, size, window)

    options = ExportOptions(
        precision, keep_float or [], batch, data, classes, images, calibration, force, strict, key
    )
    if target != "all":
        _export_target(load, target, recipe, output, options, json)
    elif recipe:
        raise SepViTError("--recipe names one target; leave it out with --target all")
    else:
        _export_all(load, output, options, json)


@dataclass(frozen=True)
class ExportOptions:
    """The command's options that are the same for every target."""

    precision: str
    keep_float: Sequence[str]
    batch: int
    data: str
    classes: str
    images: int | None
    calibration: str
    force: bool
    strict: bool
    sign: SigningKey | None


def _export_one(
    model: ReferenceModel,
    recipe: Recipe,
    folder: Path,
    options: ExportOptions,
    step: Callable[[str], None],
) -> tuple[Package, FirstLook | None]:
    """Export a model by a recipe, and time it if it runs on this machine."""
    from .cli.choices import choose_calibration, choose_data
    from .package.replacing import check_destination
    from .pipeline.export import export_package
    from .profiling.first_look import first_look

    check_destination(folder, options.force)
    package = export_package(
        model,
        output=folder,
        recipe=recipe,
        batch=options.batch,
        data=choose_data(options.data, options.classes, model.config.labels),
        images=options.images,
        calibration=choose_calibration(options.calibration, model, recipe),
        force=options.force,
        sign=options.sign,
        step=step,
    )
    return package, first_look(model, package, step)


def _export_target(
    load: Callable[[], ReferenceModel],
    target: str,
    recipe: str,
    output: Path | None,
    options: ExportOptions,
    json: bool,
) -> None:
    """Export for one target, and print the result."""
    from .cli.choices import choose_recipe, keep_in_float
    from .package.replacing import check_destination

    precision = options.precision
    # What is wrong already fails before the weights are loaded.
    keep_in_float(choose_recipe(recipe, target, precision), options.keep_float if precision else ())
    if output is not None:
        check_destination(output, options.force)
    with steps() as step:
        step("loading the weights")
        from .cli.tables import export_rows
        from .pipeline.defaults import default_output

        model = load()
        chosen = keep_in_float(choose_recipe(recipe, target, precision, model), options.keep_float)
        folder = output or default_output(model, chosen)
        with _telling_what_is_written([folder]):
            package, latency = _export_one(model, chosen, folder, options, step)
    if json:
        emit_json(_document(package, latency))
    else:
        print_table(str(package.path), export_rows(package, latency))
    _check_times([(package, latency)], options.strict)


def _export_all(
    load: Callable[[], ReferenceModel], output: Path | None, options: ExportOptions, json: bool
) -> None:
    """Export for every target of this machine, and print the results."""
    from .backends.registry import DENSE_TARGETS, host_targets
    from .cli.choices import choose_recipe, keep_in_float
    from .package.replacing import check_destination
    from .pipeline.defaults import default_output
    from .pipeline.facts import task_of

    with steps() as step:
        step("loading the weights")
        model = load()
        targets = host_targets() if task_of(model) == "classification" else DENSE_TARGETS
        recipes = [
            keep_in_float(choose_recipe("", target, options.precision, model), options.keep_float)
            for target in targets
        ]
        folders = [default_output(model, recipe) for recipe in recipes]
        if output is not None:
            folders = [output / folder.name for folder in folders]
        for folder in folders:  # before the first long export, not after it
            check_destination(folder, options.force)
        with _telling_what_is_written(folders):
            jobs = zip(recipes, folders, strict=True)
            done, missing = _export_each(model, jobs, options, step)
    _print_all(done, missing, json)
    _check_times(done, options.strict)


def _check_times(done: Sequence[tuple[Package, FirstLook | None]], strict: bool) -> None:
    """Fail on times that are not trustworthy, if that was asked for."""
    doubted = [
        f"{package.path}: {'; '.join(latency.doubts)}"
        for package, latency in done
        if latency is not None and latency.doubts
    ]
    if strict and doubted:
        raise CheckFailed(
            f"exported, but the time is not trustworthy, because of {', and '.join(doubted)}; "
            "measure on a quiet machine"
        )


def _export_each(
    model: ReferenceModel,
    jobs: Iterable[tuple[Recipe, Path]],
    options: ExportOptions,
    step: Callable[[str], None],
) -> tuple[list[tuple[Package, FirstLook | None]], dict[str, str]]:
    """Export by each recipe into its folder; also return what the missing runtimes need."""
    from .backends.registry import MissingRuntime, get_backend

    done: list[tuple[Package, FirstLook | None]] = []
    missing: dict[str, str] = {}
    for recipe, folder in jobs:
        target = recipe.target
        try:
            get_backend(target)
        except MissingRuntime as error:
            missing[target] = str(error)
            continue

        def prefixed(text: str, target: str = target) -> None:
            step(f"{target}: {text}")

        done.append(_export_one(model, recipe, folder, options, prefixed))
    return done, missing


@contextmanager
def _telling_what_is_written(folders: Sequence[Path]) -> Iterator[None]:
    """Say, when the block is interrupted, which of the packages are complete."""
    before = [_identity(folder) for folder in folders]
    try:
        yield
    except KeyboardInterrupt:
        complete = [
            str(folder)
            for folder, old in zip(folders, before, strict=True)
            if _identity(folder) not in (old, None)
        ]
        if complete:
            raise Interrupted(f"interrupted; complete: {', '.join(complete)}") from None
        raise Interrupted("interrupted; nothing was written") from None


def _identity(package: Path) -> tuple[int, int] | None:
    """Tell a package from the one that replaces it."""
    try:
        facts = (package / "manifest.json").stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _verify(
    package: Path, weights: str, data: str, classes: str, calibration: str, json: bool
) -> None:
    from .package.folder import Package

    Package(package)  # a missing or damaged one fails before torch is loaded
    from .pipeline.verify import verify_package

    with steps() as step:
        verify_package(package, weights or None, data or None, calibration or None, step, classes)
    if json:
        emit_json({"package": str(package), "identical": True})
    else:
        print_table(str(package), [("rebuilt", "identical, byte for byte")])


def _print_all(
    done: Sequence[tuple[Package, FirstLook | None]], missing: dict[str, str], json: bool
) -> None:
    from .cli.tables import EXPORTS_HEADER, exports_row

    if json:
        emit_json({"packages": [_document(*one) for one in done], "missing": missing})
        return
    rows = [exports_row(package, latency) for package, latency in done]
    rows += [[target, sentence] for target, sentence in missing.items()]
    print_columns(EXPORTS_HEADER, rows)


def _document(package: Package, latency: FirstLook | None) -> dict[str, object]:
    return {
        "package": str(package.path),
        "manifest": package.manifest.model_dump(mode="json"),
        "latency": asdict(latency) if latency else None,
    }


if __name__ == "__main__":
    main()
