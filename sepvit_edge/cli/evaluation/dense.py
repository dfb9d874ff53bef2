"""Mean IoU or average precision of a package for segmentation or detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...errors import SepViTError
from ..console import console, emit_json, print_columns, progress

if TYPE_CHECKING:
    from ...package.folder import Package


def evaluate_dense(
    package: Package,
    data: str,
    weights: Sequence[str],
    images: int | None,
    threads: int,
    workers: str,
    others: Mapping[str, object],
    json: bool,
) -> None:
    """Measure a package for segmentation or detection; `others` are options of classifiers."""
    from ...data.dense.choose import open_dense

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
    from ...model.dense import DenseModel
    from ...package.session import PackageSession
    from ...pipeline.dense_scores import score_dense
    from ...pipeline.ray_cluster import engine_on
    from ...pipeline.verify import known_weights, reference_of

    session = PackageSession(package, threads)
    checkpoint = weights[0] if weights else known_weights(package)
    model = None if checkpoint is None else reference_of(package, checkpoint)
    assert model is None or isinstance(model, DenseModel)
    count = min(images or len(dataset), len(dataset))
    with engine_on(workers, threads) as run, progress("measuring", count, "images") as advance:
        report = score_dense(session, dataset, model, images, advance, run)
    if json:
        return emit_json(report)
    names = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "ap50": "AP50", "ap": "AP"}
    names |= {"mask_ap50": "AP50 of masks", "mask_ap": "AP of masks"}
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
