"""Export a model as a package: `python -m sepvit_edge.export --target openvino`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import command, emit_json, parity_rows, print_table, steps

if TYPE_CHECKING:
    from .package import Package
    from .profiling.latency import Latency
    from .recipe import Recipe
    from .reference import SepViT


@command
def main(
    target: Annotated[str, typer.Option(help="The runtime, for example openvino.")] = "",
    recipe: Annotated[str, typer.Option(help="A recipe's name in export/, or a TOML file.")] = "",
    variant: Annotated[str, typer.Option(help="lite, t, s or b.")] = "",
    weights: Annotated[
        str, typer.Option(help="A checkpoint, a built-in one's name, or 'random'.")
    ] = "",
    labels: Annotated[str, typer.Option(help="A file of class names, or 'imagenet'.")] = "",
    image_size: Annotated[int, typer.Option(help="Side in pixels, a multiple of 32.")] = 0,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "",
    batch: Annotated[int, typer.Option(help="Images a call, fixed in the package.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Default: packages/VARIANT-TARGET-PRECISION.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="What parity is measured on: a folder or a built-in set.")
    ] = "",
    images: Annotated[int, typer.Option(help="At most so many images of it.")] = 0,
    verify: Annotated[
        Path | None, typer.Option(metavar="PACKAGE", help="Rebuild a package, compare all bytes.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing package.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Export a checkpoint as a package that is checked, measured and reproducible.

    Without options: the built-in SepViT weights, for OpenVINO, checked on images that they were
    not trained on.
    """
    from .build import default_output, export_package, verify_package
    from .data import open_dataset
    from .package import check_destination, open_package
    from .profiling.latency import available_threads, measure_latency

    if verify is not None:
        with steps() as step:
            verify_package(verify, weights or None, data or None, step)
        if json:
            emit_json({"package": str(verify), "identical": True})
        else:
            print_table(str(verify), [("rebuilt", "identical, byte for byte")])
        return
    chosen = choose_recipe(recipe, target, precision)
    with steps() as step:
        step("loading the weights")
        model = choose_model(weights, variant, labels, image_size)
        destination = output or default_output(model, chosen)
        check_destination(destination, force)
        package = export_package(
            model,
            output=destination,
            recipe=chosen,
            batch=batch,
            data=open_dataset(data, model.config.labels) if data else None,
            images=images or None,
            force=force,
            step=step,
        )
        step("timing it")
        threads = available_threads()
        latency = measure_latency(open_package(destination, threads), threads)
    if json:
        manifest = package.manifest.model_dump(mode="json")
        emit_json({"package": str(destination), "manifest": manifest, "latency": asdict(latency)})
    else:
        print_table(str(destination), summary(package, latency))


def choose_recipe(recipe: str, target: str, precision: str) -> Recipe:
    """Return the recipe that the options name.

    Raises
    ------
    SepViTError
        If there is none, or the options contradict each other.
    """
    from .errors import SepViTError
    from .recipe import find_recipe, load_recipe

    if not recipe:
        return find_recipe(target or "openvino", precision or None)
    chosen = load_recipe(recipe)
    for option, given, stated in (
        ("--target", target, chosen.target),
        ("--precision", precision, chosen.precision),
    ):
        if given and given != stated:
            raise SepViTError(f"{option} {given} contradicts --recipe {recipe}, which has {stated}")
    return chosen


def choose_model(weights: str, variant: str, labels: str, image_size: int) -> SepViT:
    """Return the model that the options name; the built-in one unless they do."""
    from .build import seeded
    from .weights import default_checkpoint, load_checkpoint, read_labels

    names = read_labels(labels) if labels else None
    if weights == "random":
        classes = len(names) if names else 1000
        return seeded(variant or "lite", classes, image_size or 224, names or ())
    return load_checkpoint(
        weights or default_checkpoint(variant or None),
        variant=variant or None,
        labels=names,
        image_size=image_size or None,
    )


def summary(package: Package, latency: Latency) -> list[tuple[str, str]]:
    """Rows of the table that an export ends with."""
    manifest = package.manifest
    model = manifest.model
    shape = " x ".join(str(side) for side in manifest.input.shape)
    rows = [
        ("model", f"{model.name}, {model.num_classes} classes"),
        ("parameters", f"{model.parameters:,}"),
        ("MACs", f"{model.macs / 1e9:.3f} G an image"),
        ("input", f"{manifest.input.dtype} {shape} ({manifest.input.layout}), RGB pixels 0-255"),
        ("precision", manifest.precision),
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
    plural = "s" if latency.threads > 1 else ""
    per = f"{latency.runs} runs, {latency.threads} thread{plural}"
    rows.append(("latency", f"p50 {latency.p50_ms:.2f} ms ({per}, this machine)"))
    return rows


def file_size(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


if __name__ == "__main__":
    main()
