"""The model card of packages on the Hugging Face Hub, made from their manifests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..package.verification import LEVELS
from .tables import file_size, images_text, precision_text

if TYPE_CHECKING:
    from ..package.folder import Package
    from ..profiling.document import Profile


def model_card(
    repository: str, packages: Sequence[Package], profiles: Sequence[Profile], licence: str
) -> str:
    """Return a card in Markdown, with the facts that the Hub reads at its top.

    Parameters
    ----------
    repository : str
        As ``user/name``.
    packages : sequence of Package
        The packages; at least one.
    profiles : sequence of Profile
        Measurements; those of other packages are left out.
    licence : str
        SPDX identifier of the weights' licence; empty if it is not known.
    """
    manifests = {package.path.resolve().name: package.manifest for package in packages}
    targets = dict.fromkeys(manifest.target for manifest in manifests.values())
    precisions = dict.fromkeys(manifest.precision for manifest in manifests.values())
    models = dict.fromkeys(
        f"{m.model.name}, {m.model.num_classes} classes, {m.model.image_size} px"
        for m in manifests.values()
    )
    trained_on = dict.fromkeys(
        m.source.trained_on for m in manifests.values() if m.source.trained_on
    )
    first = next(iter(manifests))
    lines = [
        "---",
        *([f"license: {licence.lower()}"] if licence else []),
        "library_name: sepvit-edge",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in ("sepvit", "edge", *targets, *precisions)),
        "---",
        "",
        f"# {repository.partition('/')[2]}",
        "",
        f"{'; '.join(models)}: packages for {', '.join(targets)}, made by SepViT-Edge. Each folder "
        "is a package: the model, a manifest with the SHA-256 of every file, labels, and golden "
        "vectors by which a program checks itself.",
        "",
        "```sh",
        f"hf download {repository} --include '{first}/*' --local-dir .",
        f"sepvit-edge predict {first} photo.jpg",
        "```",
        "",
        "## Packages",
        "",
        *_table(
            ("package", "target", "precision", "size", "verified"),
            [
                (
                    f"`{package.path.resolve().name}`",
                    f"{package.manifest.runtime.name} {package.manifest.runtime.version}",
                    precision_text(package.manifest),
                    file_size(package.size),
                    LEVELS[package.manifest.verification].summary,
                )
                for package in packages
            ],
        ),
        "",
        "## Accuracy, and distance to the float model",
        "",
    ]
    parities = [(name, m.parity) for name, m in manifests.items() if m.parity is not None]
    if parities:
        lines += _table(
            ("package", "measured on", "SQNR", "same class", "top-1", "top-1 of the float model"),
            [
                (
                    f"`{name}`",
                    images_text(parity.images, parity.data, parity.selection),
                    f"{parity.sqnr_db:.1f} dB",
                    f"{parity.top1_agreement:.1%}",
                    _share(parity.top1_package),
                    _share(parity.top1_reference),
                )
                for name, parity in parities
            ],
        )
    missing = [f"`{name}`" for name, m in manifests.items() if m.parity is None]
    if missing:
        lines += [
            *([""] if parities else []),
            f"Not measured, since nothing here computes them: {', '.join(missing)}.",
        ]
    lines += ["", "## Latency", "", *_latency(packages, profiles)]
    lines += ["", "## Weights", ""]
    lines.append(
        f"Trained on: {', '.join(trained_on)}."
        if trained_on
        else "What they were trained on is not stated in the manifests."
    )
    lines.append(
        f"Licence: {licence}." if licence else "Their licence was not given by the publisher."
    )
    digests = dict.fromkeys(m.source.weights_sha256 for m in manifests.values())
    lines += [f"SHA-256 of the weights: `{digest}`." for digest in digests]
    return "\n".join(lines) + "\n"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _latency(packages: Sequence[Package], profiles: Sequence[Profile]) -> list[str]:
    names = {package.manifest.digest: package.path.resolve().name for package in packages}
    rows = [
        (
            f"`{names[one.package.digest]}`",
            f"{one.device.name} ({one.device.cpu or 'CPU not known'})",
            str(one.runtime.threads or "default"),
            f"{one.latency.p50_ms:.2f} ms",
            f"{one.latency.p90_ms:.2f} ms",
        )
        for one in profiles
        if one.package.digest in names and one.latency and one.complete and not one.emulated
        if one.trust is None or one.trust.trustworthy
    ]
    if not rows:
        return ["Not measured."]
    return _table(("package", "device", "threads", "p50", "p90"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["-"] * len(header), *rows)]
