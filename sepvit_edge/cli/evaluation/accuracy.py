"""Accuracy of a classifier, here or on a device, and its distance to its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    from ...pipeline.outputs import Rows, RunFacts, Runs
    from ...pipeline.parity import DeviceDistance, DeviceMeter, ParityMeter
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
    meters = _Meters(package, taken, worst is not None)
    with (
        _keeping(save, package, model, threads, device) as kept,
        _sessions(package, threads, device, bootstrap) as sessions,
        _table(package, taken, save) as add,
        engine_on(workers, threads) as engine,
    ):
        facts = _run(sessions, model, taken, threads, kept, engine, [meters.add, add])
    distance = _report(package, taken, facts, meters, worst, confusion, json)
    if distance is not None:
        from ...pipeline.parity import check_device

        check_device(distance, manifest.precision)
    if facts.broken:
        raise SepViTError(
            f"{len(facts.broken)} of {len(taken)} images of {taken.name} could not be read; the "
            "figures are those of the others"
        )


class _Meters:
    """What is measured of the logits, piece by piece.

    Parameters
    ----------
    package : Package
        The package.
    data : Taken
        The images.
    worst : bool
        Whether to look for the worst images.
    """

    def __init__(self, package: Package, data: Taken, worst: bool) -> None:
        from ...accuracy import AccuracyMeter
        from ...pipeline.worst import WorstImages

        self._data = data
        self.accuracy = AccuracyMeter(package.labels) if data.labelled else None
        self.worst = WorstImages() if worst else None
        self.parity: ParityMeter | None = None
        self.device: DeviceMeter | None = None

    def add(self, rows: Rows) -> None:
        """Measure some images."""
        from ...pipeline.parity import DeviceMeter, ParityMeter

        if self.accuracy is not None:
            labels = [label for label in rows.labels if label is not None]
            self.accuracy.add(rows.logits["logits"], labels)
        if self.worst is not None:
            self.worst.add(rows)
        if "reference" in rows.logits:
            self.parity = self.parity or ParityMeter()
            self.parity.add(rows)
        if "here" in rows.logits:
            self.device = self.device or DeviceMeter()
            titles = [self._data.title(place) for place in rows.places]
            self.device.add(rows.logits["here"], rows.logits["logits"], titles)


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
    from ...profiling.device_session import open_on_device
    from ...profiling.devices import load_device

    with open_on_device(package, *load_device(device), threads, bootstrap) as session:
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
    takers: Sequence[Callable[[Rows], None]],
) -> RunFacts:
    from ...config.recipe import parse_recipe
    from ...pipeline.lowering import quantization_for
    from ...pipeline.outputs import run_images

    manifest = sessions.session.package.manifest
    quantization = None
    # The scales of a calibrated package are in its own files only.
    if model is not None and manifest.quantization is not None and manifest.quantization.trained:
        quantization = quantization_for(model, parse_recipe(manifest.recipe))

    def take(rows: Rows) -> None:
        for taker in takers:
            taker(rows)

    with progress(f"running {data.name}", len(data), "images") as advance:
        return run_images(
            sessions.session,
            data,
            model,
            quantization,
            advance,
            take=take,
            skip_broken=True,
            kept=kept,
            here=sessions.here,
            threads=threads,
            engine=engine,
        )


def _report(
    package: Package,
    data: Taken,
    facts: RunFacts,
    meters: _Meters,
    worst: Path | None,
    confusion: Path | None,
    json: bool,
) -> DeviceDistance | None:
    """Print and draw what was measured; return the distance of a device."""
    from ...accuracy import draw_confusion
    from ..accuracy_table import print_accuracy
    from ..tables import device_rows, images_text, parity_rows

    parity = None if meters.parity is None else meters.parity.parity(facts)
    device = None if meters.device is None else meters.device.distance()
    accuracy = None if meters.accuracy is None else meters.accuracy.report()
    if meters.worst is not None and worst is not None:
        meters.worst.draw(package, data, worst)
    if accuracy is not None and confusion is not None:
        draw_confusion(accuracy, confusion, f"{package.path.name} on {facts.data}")
    if json:
        emit_json(
            {
                "data": facts.data,
                "data_sha256": facts.data_sha256,
                "selection": facts.selection.model_dump(mode="json"),
                "broken": list(facts.broken.values()),
                "accuracy": accuracy and accuracy.to_json(),
                "parity": parity and parity.model_dump(mode="json"),
                "this_machine": device and asdict(device),
            }
        )
        return device
    if accuracy is not None:
        images = images_text(accuracy.images, facts.data, facts.selection)
        print_accuracy(accuracy, str(package.path), images)
    if parity is not None:
        print_table("distance to the checkpoint in fp32", parity_rows(parity))
    if device is not None:
        print_table("distance of the device to this machine", device_rows(device))
    return device


@contextmanager
def _table(package: Package, data: Taken, path: Path | None) -> Iterator[Callable[[Rows], None]]:
    """Write the class of each image, the most probable one, and the probabilities of both."""
    if path is None:
        yield lambda _: None
        return
    from ...accuracy import softmax
    from ...pipeline.saving import growing_table

    columns = ["image", "class", "class_1", "probability_1", "probability_of_class"]
    # Without keys nothing of an earlier table is taken over: its logits are, which is enough.
    with growing_table(path, {}, columns, keys=()) as table:

        def add(rows: Rows) -> None:
            shares = softmax(rows.logits["logits"])
            for place, label, each in zip(rows.places, rows.labels, shares, strict=True):
                best = int(each.argmax())
                known = ["", ""] if label is None else [package.labels[label], float(each[label])]
                best_one = [package.labels[best], float(each[best])]
                table.add([data.title(place), known[0], *best_one, known[1]])

        yield add
