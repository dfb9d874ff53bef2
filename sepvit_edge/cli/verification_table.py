"""The page on how NPU packages were verified: `python -m sepvit_edge.cli.verification_table`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..package.verification import LEVELS
from .console import command

if TYPE_CHECKING:
    from ..package.folder import Package
    from ..package.manifest import Manifest

_HEADER = (
    *("target", "device", "model", "MB", "verification", "images", "fp32", "int8", "CPU"),
    *("top-1 agreement", "operators outside", "MACs inside"),
)


@command
def main(
    packages: Annotated[list[Path], typer.Argument(help="Folders of packages.")],
) -> None:
    """Print a page in Markdown on how each package was verified, and its known figures."""
    from ..package.folder import Package

    sys.stdout.write(page([Package(path) for path in packages]))


def page(packages: Sequence[Package]) -> str:
    """Return the page; packages are ordered by target, precision, size of the model and device."""
    packages = sorted(packages, key=_order)
    manifests = [package.manifest for package in packages]
    known = [manifest for manifest in manifests if manifest.placement.estimates]
    levels = dict.fromkeys(manifest.verification for manifest in manifests)
    lines = [
        "# NPU targets",
        "",
        "Made from the manifests of packages by "
        "`python -m sepvit_edge.cli.verification_table PACKAGE... > docs/npu.md`. "
        "SQNR is that of the logits in dB: against the fp32 reference, against the same int8 "
        "model in torch, against the same file on a CPU.",
        "",
        *_table(
            _HEADER,
            [_row(package) for package in packages],
        ),
        "",
        *(f"- **{name}**: {level.proof}." for name, level in LEVELS.items() if name in levels),
    ]
    if known:
        lines += [
            "",
            "## Estimates",
            "",
            "What compilers expect of the devices. Nothing here was measured.",
            "",
            *_table(
                ("target", "model", "what", "estimate", "by"),
                [
                    (m.target, _model(m), e.what, f"{e.value:.4g} {e.unit}", e.source)
                    for m in known
                    for e in m.placement.estimates
                ],
            ),
        ]
    lines += ["", "## Versions", ""]
    versions: dict[str, list[str]] = {}
    for manifest in manifests:
        text = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
        versions.setdefault(text, [])
        if manifest.target not in versions[text]:
            versions[text].append(manifest.target)
    lines += [f"- {', '.join(targets)}: {text}" for text, targets in versions.items()]
    return "\n".join(lines) + "\n"


def _order(package: Package) -> tuple[object, ...]:
    manifest = package.manifest
    return (
        manifest.target,
        manifest.precision,
        manifest.model.parameters,
        manifest.model.image_size,
        manifest.placement.device,
    )


def _model(manifest: Manifest) -> str:
    model = manifest.model
    return f"{model.name}, {model.image_size} px, {manifest.precision}"


def _row(package: Package) -> tuple[str, ...]:
    manifest = package.manifest
    placement, parity = manifest.placement, manifest.parity
    inside = [group for group in placement.placed if group.accelerated]
    placed = ("not known", "not known")
    if inside or placement.outside:
        share = sum(group.macs_share for group in inside)
        placed = (str(len(placement.outside)), f"{share:.1%}")
    distance: tuple[str, ...] = ("-",) * 5
    if parity is not None:
        ratios = (parity.sqnr_db, parity.sqnr_quantized_db, parity.sqnr_cpu_db)
        texts = ["-" if ratio is None else f"{ratio:.1f}" for ratio in ratios]
        distance = (f"{parity.images} {parity.data}", *texts, f"{parity.top1_agreement:.1%}")
    return (
        manifest.target,
        placement.device,
        _model(manifest),
        f"{package.size / 1e6:.1f}",
        manifest.verification,
        *distance,
        *placed,
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["-"] * len(header), *rows)]


if __name__ == "__main__":
    main()
