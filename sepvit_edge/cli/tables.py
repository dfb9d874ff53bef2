"""Rows of the tables that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data.classes import BY_NUMBER, BY_ORDER
from ..package.verification import LEVELS

if TYPE_CHECKING:
    from ..package.folder import Package
    from ..package.manifest import Manifest, Parity, Placement, Selection
    from ..pipeline.comparison import Row
    from ..pipeline.parity import DeviceDistance
    from ..profiling.first_look import FirstLook


def export_rows(package: Package, latency: FirstLook | None) -> list[tuple[str, str]]:
    """Return the rows of the table that ends an export."""
    manifest = package.manifest
    model = manifest.model
    shape = " x ".join(str(side) for side in manifest.input.shape)
    rows = [
        ("model", f"{model.name}, {model.num_classes} classes"),
        ("parameters", f"{model.parameters:,}"),
        ("MACs", f"{model.macs / 1e9:.3f} G per image"),
        ("input", f"{manifest.input.dtype} {shape} ({manifest.input.layout}), RGB pixels 0-255"),
        ("precision", precision_text(manifest)),
        ("runtime", f"{manifest.runtime.name} {manifest.runtime.version}"),
        ("", ""),
    ]
    rows += [(file.path, file_size(file.size)) for file in manifest.files]
    rows.append(("", ""))
    rows += [*_placement_rows(manifest.placement), ("", "")]
    for graph in manifest.graphs or ():
        regions = f"{graph.macs / 1e9:.3f} G MACs for {graph.input.shape[0]} regions"
        rows += [(graph.name, regions), *_placement_rows(graph.placement), ("", "")]
    if manifest.parity is not None:
        rows += [*parity_rows(manifest.parity), ("", "")]
    if manifest.verification != "run":
        rows.append(("verification", LEVELS[manifest.verification].summary))
    for estimate in manifest.placement.estimates:
        value = f"{estimate.value:.4g} {estimate.unit}, estimated by {estimate.source}"
        rows.append((estimate.what, value))
    if latency is None and manifest.graphs:
        return [*rows, ("latency", "not measured: it depends on the objects in an image")]
    if latency is None:
        return [*rows, ("latency", "not measured: the package does not run on this machine")]
    plural = "s" if latency.threads > 1 else ""
    per = f"{latency.runs} runs, {latency.threads} thread{plural}"
    rows.append(("latency", f"p50 {latency.p50_ms:.2f} ms ({per}, this machine)"))
    if latency.doubts:
        rows.append(("NOT TRUSTWORTHY", f"because {'; '.join(latency.doubts)}"))
    if (over := latency.over_fp32) is not None:
        much = f"{over.ratio:.2f} times as fast (p10 {over.p10:.2f}, p90 {over.p90:.2f})"
        slower = "; int8 is SLOWER here, export with --precision fp32" if over.ratio < 1 else ""
        rows.append(("over fp32", f"{much}{slower}"))
    return rows


def _placement_rows(placement: Placement) -> list[tuple[str, str]]:
    rows = []
    for group in placement.placed:
        share = f"{group.macs_share:.1%} of the MACs"
        rows.append((group.where, f"{group.ops} operations in {group.precision}, {share}"))
    if placement.outside:
        rows.append(("outside", f"{len(placement.outside)} operations"))
    return rows


EXPORTS_HEADER = (
    *("target", "precision", "MB", "SQNR dB", "agreement", "top-1", "outside", "p50 ms"),
    "over fp32",
)


def exports_row(package: Package, latency: FirstLook | None) -> list[str]:
    """Return the row of one package in the table of several exports (`EXPORTS_HEADER`)."""
    manifest = package.manifest
    parity = manifest.parity
    distance = ["-", "-", "-"]
    if parity is not None:
        top1 = "-" if parity.top1_package is None else f"{parity.top1_package:.2%}"
        distance = [f"{parity.sqnr_db:.1f}", f"{parity.top1_agreement:.1%}", top1]
    return [
        manifest.target,
        manifest.precision,
        f"{package.size / 1e6:.2f}",
        *distance,
        str(sum(len(one.outside) for one in placements_of(manifest))),
        _p50(latency) if latency else manifest.verification,
        f"{latency.over_fp32.ratio:.2f}" if latency and latency.over_fp32 else "-",
    ]


def placements_of(manifest: Manifest) -> list[Placement]:
    """Return the placement of every graph of a package."""
    return [manifest.placement, *(graph.placement for graph in manifest.graphs or ())]


def _p50(latency: FirstLook) -> str:
    return f"{latency.p50_ms:.2f}{' (not trustworthy)' * bool(latency.doubts)}"


def precision_text(manifest: Manifest) -> str:
    """Return the precision, and for int8 how its scales were found."""
    facts = manifest.quantization
    if facts is None:
        return manifest.precision
    how = f"calibrated on {facts.calibration_images} images of {facts.calibration_data}"
    how = "quantisation-aware" if facts.trained else how
    kept = f", {len(facts.float_layers)} layers in float" if facts.float_layers else ""
    return f"{manifest.precision}, {how}{kept}"


def file_size(size: int) -> str:
    """Format a number of bytes."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def images_text(images: int, data: str, selection: Selection | None) -> str:
    """Return how many images of which data were used, and how they and their classes were found."""
    if selection is None:
        return f"{images} images of {data}"
    sample = f"{images} of {selection.available} images of {data}, {selection.rule}"
    text = f"{images} images of {data}" if selection.rule == "all" else sample
    by_place = selection.class_rule in (BY_NUMBER, BY_ORDER)
    return f"{text}; classes by {selection.class_rule}" if by_place else text


def parity_rows(parity: Parity) -> list[tuple[str, str]]:
    """Return the rows that show a parity measurement."""
    rows = [
        ("compared on", images_text(parity.images, parity.data, parity.selection)),
        ("max abs error", f"{parity.max_abs_error:.2g} (logits span {parity.logits_range:.3g})"),
        ("SQNR", f"{parity.sqnr_db:.1f} dB against fp32"),
        ("top-1 agreement", f"{parity.top1_agreement:.2%}"),
    ]
    if parity.sqnr_quantized_db is not None:
        rounding = f"{parity.sqnr_quantized_db:.1f} dB against torch's int8"
        rows.insert(3, ("SQNR of rounding", rounding))
    if parity.sqnr_cpu_db is not None:
        own = f"{parity.sqnr_cpu_db:.1f} dB against the same on a CPU"
        rows.insert(-1, ("SQNR of the NPU", own))
    if parity.top1_reference is not None and parity.top1_package is not None:
        rows.append(("top-1 reference", f"{parity.top1_reference:.2%}"))
        rows.append(("top-1 package", f"{parity.top1_package:.2%}"))
    if parity.top1_difference is not None and parity.top1_difference_interval is not None:
        low, high = parity.top1_difference_interval
        interval = f"95 % interval {low:+.2%} to {high:+.2%}, McNemar p = {parity.mcnemar_p:.2g}"
        rows.append(("difference", f"{parity.top1_difference:+.2%} ({interval})"))
    return rows


def device_rows(distance: DeviceDistance) -> list[tuple[str, str]]:
    """Return the rows that show a device beside this machine."""
    return [
        ("images", f"{distance.images}, {distance.identical} with the same bits"),
        ("max abs error", f"{distance.max_abs_error:.2g}"),
        ("SQNR", f"{distance.sqnr_db:.1f} dB"),
        ("top-1 agreement", f"{distance.top1_agreement:.2%}"),
        ("worst image", f"{distance.worst_image}, {distance.worst_sqnr_db:.1f} dB"),
    ]


COMPARISON_HEADER = (
    *("checkpoint", "runtime", "precision", "MB", "top-1", "difference, 95 % interval"),
    *("agreement", "SQNR dB", "to torch int8"),
)


def comparison_row(row: Row) -> list[str]:
    """Return the cells of one row of a comparison (`COMPARISON_HEADER`)."""
    difference = "-"
    if row.difference is not None and row.interval is not None:
        low, high = row.interval
        difference = f"{row.difference:+.2%} ({low:+.2%} to {high:+.2%})"
    return [
        row.checkpoint,
        row.runtime,
        row.precision,
        "-" if row.megabytes is None else f"{row.megabytes:.2f}",
        "-" if row.top1 is None else f"{row.top1:.2%}",
        difference,
        f"{row.agreement:.2%}",
        "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
        "-" if row.sqnr_quantized_db is None else f"{row.sqnr_quantized_db:.1f}",
    ]
