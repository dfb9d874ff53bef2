"""Measure a package on images: `python -m sepvit_edge.evaluate PACKAGE --data FOLDER`.

Or everything at once: `python -m sepvit_edge.evaluate --all [--weights CHECKPOINT ...]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import (
    command,
    console,
    emit_json,
    print_columns,
    print_table,
    progress,
    stderr,
    steps,
)
from .cli.options import MOST_THREADS, Classes, RequireSignature
from .errors import CheckFailed, Interrupted, SepViTError

if TYPE_CHECKING:
    from .data.sample import Taken
    from .model.create import ReferenceModel
    from .model.reference import SepViT
    from .package.folder import Package
    from .pipeline.comparison import Comparison
    from .pipeline.kept import KeptLogits
    from .pipeline.outputs import Outputs, Runs


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
        str, typer.Option(help="With --by-block: calibration images of an int8 package.")
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
    from .pipeline.saving import check_save

    _check_options(packages or [], weights or [], everything, by_block, worst, confusion)
    _check_device(device, bootstrap, everything or by_block)
    if save is not None:
        if everything or by_block:
            raise SepViTError("--save is for one package and its classes; leave it out here")
        check_save(save)
    check_names(weights=weights or [], data=[calibration], classes=classes)
    check_targets(target or [])
    if everything:
        check_names(data=[data])
        _evaluate_all(weights or [], data, classes, images, target or [], json)
        return
    from .cli.choices import choose_data
    from .data.sample import take_evenly
    from .package.folder import Package

    # The package and the images are checked before torch is loaded.
    opened, *others = [Package(path, require_signature) for path in packages or []]
    if by_block:
        check_names(data=[data])
        given = weights[0] if weights else None
        _evaluate_by_block([opened, *others], given, data, classes, calibration, json)
        return
    if opened.manifest.task != "classification":
        unused = {"--worst": worst, "--confusion": confusion, "--save": save, "--classes": classes}
        unused |= {"--device": device}
        return _evaluate_dense(opened, data, weights or [], images, threads, unused, json)
    check_names(data=[data])
    dataset, limit = choose_data(data, classes, opened.labels), images
    from .model.dense import DenseModel
    from .pipeline.defaults import data_for
    from .pipeline.verify import known_weights, reference_of

    manifest = opened.manifest
    checkpoint = weights[0] if weights else known_weights(opened)
    model = reference_of(opened, checkpoint) if checkpoint is not None else None
    if dataset is None:
        dataset, limit = data_for(manifest.source.trained_on, images)
    taken = take_evenly(dataset, limit)
    if not taken.labelled and (model is None or worst or confusion):
        raise SepViTError(
            f"the images of {dataset.name} have no labels, which accuracy needs; give a folder "
            "with one folder per class by --data"
        )
    assert not isinstance(model, DenseModel)
    count = len(taken)
    with (
        _keeping(save, opened, model, threads, device) as kept,
        _sessions(opened, threads, device, bootstrap) as sessions,
    ):
        outputs = _run(sessions, model, taken, threads, kept)
        if outputs.broken:
            taken = taken.only([i for i in range(count) if i not in outputs.broken])
        if save is not None:
            _save(opened, taken, outputs, save)
    _report(opened, taken, outputs, worst, confusion, json)
    if outputs.here is not None:
        from .pipeline.parity import check_device

        check_device(outputs.here, outputs.logits, manifest.precision)
    if outputs.broken:
        raise SepViTError(
            f"{len(outputs.broken)} of {count} images of {taken.name} could not be read; the "
            "figures are those of the others"
        )


@dataclass(frozen=True)
class _Sessions:
    """What runs the images: this machine, or a device with this machine beside it."""

    session: Runs
    here: Runs | None = None


@contextmanager
def _sessions(package: Package, threads: int, device: str, bootstrap: bool) -> Iterator[_Sessions]:
    """Open the package on a device, or here."""
    from .package.session import PackageSession

    if not device:
        yield _Sessions(PackageSession(package, threads))
        return
    from .profiling.device_session import DeviceSession
    from .profiling.devices import load_device

    with DeviceSession(package, *load_device(device), threads, bootstrap) as session:
        here = None
        try:
            here = PackageSession(package, threads)
        except SepViTError as error:
            stderr.print(f"not compared with this machine: {error}", markup=False)
        yield _Sessions(session, here)


@contextmanager
def _keeping(
    save: Path | None, package: Package, model: ReferenceModel | None, threads: int, device: str
) -> Iterator[KeptLogits | None]:
    """Keep the logits beside the file to save, or of a device, to continue after a break."""
    if save is None and not device:
        yield None
        return
    from .checkpoints.source import source_of
    from .pipeline.kept import kept_logits, kept_of_device

    facts = {
        "package": package.manifest.digest,
        "weights": source_of(model).weights_sha256 if model is not None else None,
        "threads": threads,
        "device": device,
    }
    path = kept_of_device(facts) if save is None else save.with_name(f".{save.name}.logits")
    try:
        with kept_logits(path, facts) as kept:
            yield kept
            if kept.found:
                stderr.print(f"{kept.found} images were continued from an earlier run")
    except KeyboardInterrupt:
        raise Interrupted("interrupted; repeat the command to continue where it ended") from None


def _evaluate_dense(
    package: Package,
    data: str,
    weights: Sequence[str],
    images: int | None,
    threads: int,
    others: Mapping[str, object],
    json: bool,
) -> None:
    """Measure a package for segmentation or detection; `others` are options of classifiers."""
    from .data.dense.choose import open_dense

    task = package.manifest.task
    for option, value in others.items():
        if value:
            raise SepViTError(f"{option} is for classification; leave it out with {task}")
    trained_on = package.manifest.source.trained_on
    spec = data or ("scenes" if trained_on == "scenes/train" else "")
    if not spec:
        kind = "a folder of images and masks" if task == "segmentation" else "a COCO file"
        raise SepViTError(f"give {kind} by --data, or scenes for weights that learnt them")
    dataset = open_dense(spec, task, package.labels)
    from .model.dense import DenseModel
    from .package.session import PackageSession
    from .pipeline.dense_scores import score_dense
    from .pipeline.verify import known_weights, reference_of

    session = PackageSession(package, threads)
    checkpoint = weights[0] if weights else known_weights(package)
    model = None if checkpoint is None else reference_of(package, checkpoint)
    assert model is None or isinstance(model, DenseModel)
    count = min(images or len(dataset), len(dataset))
    with progress("measuring", count, "images") as advance:
        report = score_dense(session, dataset, model, images, advance)
    if json:
        return emit_json(report)
    names = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "ap50": "AP50", "ap": "AP"}
    sides = [side for side in ("package", "reference") if side in report]
    rows = [
        [name, *(f"{report[side][key]:.2%}" for side in sides)]
        for key, name in names.items()
        if key in report["package"]
    ]
    print_columns([f"{report['images']} images of {report['data']}", *sides], rows)
    if report.get("agreement") is not None:
        what = "pixels with the same class" if task == "segmentation" else "boxes in common"
        console.print(f"{what}: {report['agreement']:.2%}")


def _save(package: Package, data: Taken, outputs: Outputs, path: Path) -> None:
    """Write the class of each image, the most probable one, and the probabilities of both."""
    from .accuracy import softmax
    from .pipeline.saving import growing_table

    columns = ["image", "class", "class_1", "probability_1", "probability_of_class"]
    names = [data.title(i) for i in range(len(data))]
    facts = {"package": package.manifest.digest, "data": outputs.data_sha256}
    with growing_table(path, facts, columns, names) as table:
        for i in range(table.kept, len(names)):
            shares, label = softmax(outputs.logits[i : i + 1])[0], outputs.labels[i]
            best = int(shares.argmax())
            known = ["", ""] if label is None else [package.labels[label], float(shares[label])]
            row = [names[i], known[0], package.labels[best], float(shares[best]), known[1]]
            table.add(row)


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


def _run(
    sessions: _Sessions,
    model: SepViT | None,
    data: Taken,
    threads: int,
    kept: KeptLogits | None,
) -> Outputs:
    from .config.recipe import parse_recipe
    from .model.logits import torch_threads
    from .pipeline.lowering import quantization_for
    from .pipeline.outputs import run_images

    manifest = sessions.session.package.manifest
    quantization = None
    # The scales of a calibrated package are in its own files only.
    if model is not None and manifest.quantization is not None and manifest.quantization.trained:
        quantization = quantization_for(model, parse_recipe(manifest.recipe))
    with torch_threads(threads), progress(f"running {data.name}", len(data), "images") as advance:
        return run_images(
            sessions.session,
            data,
            model,
            quantization,
            advance,
            skip_broken=True,
            kept=kept,
            here=sessions.here,
        )


def _report(
    package: Package,
    data: Taken,
    outputs: Outputs,
    worst: Path | None,
    confusion: Path | None,
    json: bool,
) -> None:
    from .accuracy import accuracy_report, draw_confusion
    from .cli.accuracy_table import print_accuracy
    from .cli.tables import device_rows, images_text, parity_rows
    from .pipeline.parity import compare_device, parity_between
    from .pipeline.worst import draw_worst

    parity = None if outputs.reference is None else parity_between(outputs)
    device = None
    if outputs.here is not None:
        titles = [data.title(i) for i in range(len(data))]
        device = compare_device(outputs.here, outputs.logits, titles)
    accuracy = None
    if data.labelled:
        labels = [label for label in outputs.labels if label is not None]
        accuracy = accuracy_report(outputs.logits, labels, package.labels)
        if worst is not None:
            draw_worst(package, data, outputs.logits, labels, worst)
        if confusion is not None:
            draw_confusion(accuracy, confusion, f"{package.path.name} on {outputs.data}")
    if json:
        emit_json(
            {
                "data": outputs.data,
                "data_sha256": outputs.data_sha256,
                "selection": outputs.selection.model_dump(mode="json"),
                "broken": list(outputs.broken.values()),
                "accuracy": accuracy and accuracy.to_json(),
                "parity": parity and parity.model_dump(mode="json"),
                "this_machine": device and asdict(device),
            }
        )
        return
    if accuracy is not None:
        images = images_text(accuracy.images, outputs.data, outputs.selection)
        print_accuracy(accuracy, str(package.path), images)
    if parity is not None:
        print_table("distance to the checkpoint in fp32", parity_rows(parity))
    if device is not None:
        print_table("distance of the device to this machine", device_rows(device))


def _evaluate_all(
    weights: Sequence[str],
    data: str,
    classes: str,
    images: int | None,
    only: Sequence[str],
    json: bool,
) -> None:
    from .checkpoints.builtin import builtin_checkpoints, default_checkpoint
    from .checkpoints.files import load_checkpoint
    from .cli.choices import choose_data
    from .pipeline.comparison import compare_everything
    from .pipeline.defaults import default_data

    names = weights or [default_checkpoint().stem]
    builtin = builtin_checkpoints()
    checkpoints = [(Path(n).stem, load_checkpoint(builtin.get(n, Path(n)))) for n in names]
    model = checkpoints[0][1]
    dataset = choose_data(data, classes, model.config.labels) or default_data(model)[0]
    with steps() as step:
        result = compare_everything(checkpoints, dataset, images=images, only=only, step=step)
    if json:
        emit_json(asdict(result))
    else:
        _print_comparison(result)


def _print_comparison(result: Comparison) -> None:
    from .cli.tables import COMPARISON_HEADER, comparison_row, images_text
    from .package.manifest import Selection

    selection = Selection.model_validate(result.selection)
    rows = [comparison_row(row) for row in result.rows]
    rows += [["", target, sentence] for target, sentence in result.missing.items()]
    print_columns(COMPARISON_HEADER, rows)
    first = result.rows[0]
    console.print(
        f"{images_text(result.images, result.data, selection)}; differences and agreement to "
        f"{first.checkpoint} in {first.runtime} {first.precision}",
        markup=False,
    )
    for name, share in result.least_agreement.items():
        console.print(f"{name}: any two runtimes agree on at least {share:.2%}", markup=False)


def _evaluate_by_block(
    packages: Sequence[Package],
    checkpoint: str | None,
    data: str,
    classes: str,
    calibration: str,
    json: bool,
) -> None:
    from .cli.by_block_table import print_by_block
    from .cli.choices import choose_data
    from .data.choose import open_dataset
    from .data.preprocess import input_pixels
    from .pipeline.by_block import distances, leaving_sentence
    from .pipeline.defaults import data_for
    from .pipeline.verify import reference_of

    images = open_dataset(calibration, None, "calibration") if calibration else None
    found, faults = {}, []
    with steps() as step:
        for package in packages:
            step(f"building and running the tapped twin of {package.path.name}")
            model = reference_of(package, checkpoint)
            dataset = choose_data(data, classes, package.labels)
            if dataset is None:
                dataset, _ = data_for(package.manifest.source.trained_on, 1)
            pixels = input_pixels([dataset[0].image], model.config)
            taps = found[str(package.path)] = distances(package, model, pixels, images)
            if sentence := leaving_sentence(taps, package.manifest.precision):
                faults.append(f"{package.path}: {sentence}" if len(packages) > 1 else sentence)
    if json:
        tables = {name: [asdict(tap) for tap in taps] for name, taps in found.items()}
        emit_json(tables if len(tables) > 1 else next(iter(tables.values())))
    else:
        print_by_block(found)
    if faults:
        raise CheckFailed("; ".join(faults))


if __name__ == "__main__":
    main()
