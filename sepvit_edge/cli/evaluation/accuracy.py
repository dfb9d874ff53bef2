"""Accuracy of a classifier, here or on a device, and its distance to its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import Interrupted, SepViTError
from ..choices import choose_data
from ..console import emit_json, print_table, progress, stderr

if TYPE_CHECKING:
    from ...data.sample import Taken
    from ...model.create import ReferenceModel
    from ...model.reference import SepViT
    from ...package.folder import Package
    from ...pipeline.kept import KeptLogits
    from ...pipeline.outputs import Outputs, Runs
    from ...pipeline.reading import Engine


def evaluate_accuracy(
    package: Package,
    weights: str | None,
    data: str,
    classes: str,
    images: int | None,
    *,
    threads: int,
    workers: str,
    device: str,
    bootstrap: bool,
    worst: Path | None,
    confusion: Path | None,
    save: Path | None,
    json: bool,
) -> None:
    """Run a classifier on images, and print or write what was asked for.

    Parameters
    ----------
    package : Package
        The package.
    weights : str or None
        Its checkpoint. Default: the built-in one, if it was made from that.
    data, classes, images, threads, workers, device, bootstrap, worst, confusion, save, json
        As the options of `evaluate`.

    Raises
    ------
    SepViTError
        If the images have no labels and nothing to compare with, or some cannot be read.
    CheckFailed
        If a device is farther from this machine than rounding explains.
    """
    # The images are looked up before torch is loaded.
    dataset, limit = choose_data(data, classes, package.labels), images
    from ...data.sample import take_evenly
    from ...model.dense import DenseModel
    from ...pipeline.defaults import data_for
    from ...pipeline.ray_cluster import engine_on
    from ...pipeline.verify import known_weights, reference_of

    manifest = package.manifest
    checkpoint = weights or known_weights(package)
    model = reference_of(package, checkpoint) if checkpoint is not None else None
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
        _keeping(save, package, model, threads, device) as kept,
        _sessions(package, threads, device, bootstrap) as sessions,
    ):
        with engine_on(workers, threads) as engine:
            outputs = _run(sessions, model, taken, threads, kept, engine)
        if outputs.broken:
            taken = taken.only([i for i in range(count) if i not in outputs.broken])
        if save is not None:
            _save(package, taken, outputs, save)
    _report(package, taken, outputs, worst, confusion, json)
    if outputs.here is not None:
        from ...pipeline.parity import check_device

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
    from ...package.session import PackageSession

    if not device:
        yield _Sessions(PackageSession(package, threads))
        return
    from ...profiling.device_session import DeviceSession
    from ...profiling.devices import load_device

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
    from ...checkpoints.source import source_of
    from ...pipeline.kept import kept_logits, kept_of_device

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


def _run(
    sessions: _Sessions,
    model: SepViT | None,
    data: Taken,
    threads: int,
    kept: KeptLogits | None,
    engine: Engine,
) -> Outputs:
    from ...config.recipe import parse_recipe
    from ...pipeline.lowering import quantization_for
    from ...pipeline.outputs import run_images

    manifest = sessions.session.package.manifest
    quantization = None
    # The scales of a calibrated package are in its own files only.
    if model is not None and manifest.quantization is not None and manifest.quantization.trained:
        quantization = quantization_for(model, parse_recipe(manifest.recipe))
    with progress(f"running {data.name}", len(data), "images") as advance:
        return run_images(
            sessions.session,
            data,
            model,
            quantization,
            advance,
            skip_broken=True,
            kept=kept,
            here=sessions.here,
            threads=threads,
            engine=engine,
        )


def _report(
    package: Package,
    data: Taken,
    outputs: Outputs,
    worst: Path | None,
    confusion: Path | None,
    json: bool,
) -> None:
    from ...accuracy import accuracy_report, draw_confusion
    from ...pipeline.parity import compare_device, parity_between
    from ...pipeline.worst import draw_worst
    from ..accuracy_table import print_accuracy
    from ..tables import device_rows, images_text, parity_rows

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


def _save(package: Package, data: Taken, outputs: Outputs, path: Path) -> None:
    """Write the class of each image, the most probable one, and the probabilities of both."""
    from ...accuracy import softmax
    from ...pipeline.saving import growing_table

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
