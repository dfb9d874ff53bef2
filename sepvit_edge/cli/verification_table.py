"""Facts of NPU packages for the documentation: `python -m sepvit_edge.cli.verification_table`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import command, emit_json

if TYPE_CHECKING:
    from ..package.folder import Package


@command
def main(
    packages: Annotated[list[Path], typer.Argument(help="Folders of packages.")],
) -> None:
    """Print how each package was verified, and its known figures, as JSON.

    docs/data/verification.json holds it; scripts/make_docs.py makes the tables.
    """
    from ..package.folder import Package

    emit_json(facts([Package(path) for path in packages]))


def facts(packages: Sequence[Package]) -> list[dict[str, Any]]:
    """Return the facts of packages by target, precision, size of the model and device."""
    return [_facts(package) for package in sorted(packages, key=_order)]


def _order(package: Package) -> tuple[object, ...]:
    manifest = package.manifest
    return (
        manifest.target,
        manifest.precision,
        manifest.model.parameters,
        manifest.model.image_size,
        manifest.placement.device,
    )


def _facts(package: Package) -> dict[str, Any]:
    manifest = package.manifest
    placement, parity = manifest.placement, manifest.parity
    inside = [group for group in placement.placed if group.accelerated]
    placed = bool(inside or placement.outside)
    distance = ("images", "data", "sqnr_db", "sqnr_quantized_db", "sqnr_cpu_db", "top1_agreement")
    return {
        "target": manifest.target,
        "device": placement.device,
        "model": manifest.model.name,
        "image_size": manifest.model.image_size,
        "precision": manifest.precision,
        "megabytes": round(package.size / 1e6, 1),
        "verification": manifest.verification,
        "parity": parity and {key: getattr(parity, key) for key in distance},
        "outside": len(placement.outside) if placed else None,
        "macs_inside": sum(group.macs_share for group in inside) if placed else None,
        "estimates": [estimate.model_dump(mode="json") for estimate in placement.estimates],
        "versions": manifest.versions,
    }


if __name__ == "__main__":
    main()
