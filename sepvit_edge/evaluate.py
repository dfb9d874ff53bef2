"""Measure a package on images: `python -m sepvit_edge.evaluate PACKAGE --data FOLDER`.

Or everything at once: `python -m sepvit_edge.evaluate --all [--weights CHECKPOINT ...]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .cli.console import command
from .cli.options import MOST_THREADS, Classes, RequireSignature, Workers
from .errors import SepViTError


@command
def main(
    packages: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folder of a package; with --by-block also several, side by side.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            help="Images: one folder per class, or a built-in set. Segmentation: a folder of "
            "images and masks, or scenes. Detection: a COCO file, or scenes."
        ),
    ] = "",
    classes: Classes = "",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint of the package (FILE::KEY: the weights under a key of it), to measure "
            "the distance to it too; found by itself if built in. Repeatable with --all."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every runtime and precision of the --weights.")
    ] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="With --all: this runtime only; repeatable.")
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="With --all and --by-block: images to calibrate int8 on.")
    ] = "",
    images: Annotated[
        int | None,
        typer.Option(help="Maximum number of images, taken evenly over the classes.", min=1),
    ] = None,
    by_block: Annotated[
        bool, typer.Option("--by-block", help="Compare the output of every part of the network.")
    ] = False,
    worst: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write a contact sheet of the worst images.")
    ] = None,
    confusion: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write a picture of the confusion matrix.")
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            help="Threads; 1 gives the same result on any number of cores.", min=1, max=MOST_THREADS
        ),
    ] = 1,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write each image's class to a .csv or .parquet file; a run that ended early "
            "continues.",
        ),
    ] = None,
    workers: Workers = "",
    device: Annotated[
        str,
        typer.Option(
            help="Run the package on this device, and compare it with this machine: a name in "
            "profiles/, or a TOML file. A run that broke off continues."
        ),
    ] = "",
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Install the runtime on the device if needed.")
    ] = False,
    require_signature: RequireSignature = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure a package's accuracy on labelled images, and its distance to its checkpoint.

    Accuracy is top-1, top-5, that of every class, the confusions and the calibration error. The
    distance to the fp32 reference is measured if the checkpoint is built in or given. Of a package
    for segmentation mean IoU is measured, of one for detection average precision.
    """
    from .cli.names import check_names, check_targets
    from .pipeline.ray_cluster import check_workers
    from .pipeline.saving import check_save

    _check_options(packages or [], weights or [], everything, by_block, worst, confusion)
    _check_device(device, bootstrap, everything or by_block)
    if save is not None:
        if everything or by_block:
            raise SepViTError("--save is for one package and its classes; leave it out here")
        check_save(save)
    if workers:
        if everything or by_block or device:
            raise SepViTError("--workers is for one package without a device; leave it out here")
        check_workers(workers)
    if calibration and not (everything or by_block):
        raise SepViTError("--calibration is for --all and --by-block; a package has its scales")
    check_names(weights=weights or [], data=[calibration], classes=classes)
    check_targets(target or [])
    if everything:
        from .cli.evaluation.everything import evaluate_everything

        check_names(data=[data])
        evaluate_everything(weights or [], data, classes, images, target or [], calibration, json)
        return
    from .package.folder import Package

    # Packages are checked before torch is loaded.
    opened, *others = [Package(path, require_signature) for path in packages or []]
    if by_block:
        from .cli.evaluation.by_block import evaluate_by_block

        check_names(data=[data])
        given = weights[0] if weights else None
        evaluate_by_block([opened, *others], given, data, classes, calibration, json)
        return
    if opened.manifest.task != "classification":
        from .cli.evaluation.dense import evaluate_dense

        unused = {"--worst": worst, "--confusion": confusion, "--save": save, "--classes": classes}
        unused["--device"] = device
        return evaluate_dense(opened, data, weights or [], images, threads, workers, unused, json)
    from .cli.evaluation.accuracy import evaluate_accuracy

    check_names(data=[data])
    evaluate_accuracy(
        opened,
        weights[0] if weights else None,
        data,
        classes,
        images,
        threads=threads,
        workers=workers,
        device=device,
        bootstrap=bootstrap,
        worst=worst,
        confusion=confusion,
        save=save,
        json=json,
    )


def _check_options(
    packages: Sequence[Path],
    weights: Sequence[str],
    everything: bool,
    by_block: bool,
    worst: Path | None,
    confusion: Path | None,
) -> None:
    """Reject options that contradict each other, and files that cannot be written."""
    from .charts import load_pyplot
    from .files import check_output_file

    if everything and packages:
        raise SepViTError(f"--all exports the --weights anew; leave {packages[0]} out")
    if not packages and not everything:
        raise SepViTError("name a package, or give --all for every runtime of the built-in weights")
    if len(packages) > 1 and not by_block:
        raise SepViTError("only --by-block takes several packages; evaluate them one by one")
    if len(weights) > 1 and not everything:
        raise SepViTError("a package has one checkpoint: give --weights once, or --all for several")
    for option, path in (("--worst", worst), ("--confusion", confusion)):
        if path is None:
            continue
        if everything or by_block:
            mode = "--all" if everything else "--by-block"
            raise SepViTError(f"{option} shows the accuracy of a package; leave it out with {mode}")
        check_output_file(path, option, ".png")
    if worst is not None and confusion is not None and worst.resolve() == confusion.resolve():
        raise SepViTError("--worst and --confusion name one file; give each a file")
    if confusion is not None:
        load_pyplot()  # a missing matplotlib fails before the work, not after it


def _check_device(device: str, bootstrap: bool, other_mode: bool) -> None:
    """Reject options that do not go with a device, and devices that are not known."""
    if not device:
        if bootstrap:
            raise SepViTError("--bootstrap is for --device; leave it out, or name a device")
        return
    if other_mode:
        raise SepViTError("--device runs one package; leave it out with --all and --by-block")
    from .profiling.device_session import check_takes_images
    from .profiling.devices import load_device

    check_takes_images(*load_device(device))


if __name__ == "__main__":
    main()
