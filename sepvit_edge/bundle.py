"""Put packages into an app: `python -m sepvit_edge.bundle PACKAGE... --app android`.

Without a package: the built-in SepViT-Lite in int8, for the app's first runtime.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .cli.console import command, emit_json, print_columns, steps
from .cli.options import RequireSignature
from .pipeline.apps import APPS


@command
def main(
    app: Annotated[str, typer.Option(help=f"The app: {', '.join(APPS)}.")],
    packages: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of packages, in the order to show them. Default: SepViT-Lite in int8."
        ),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(help="Folder of the app's project. Default: the one in this repository."),
    ] = None,
    require_signature: RequireSignature = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Put packages into an app, replacing those that it has.

    Every package is checked first, and refused if the app has no runtime for it.
    """
    from .errors import SepViTError, unknown_name
    from .package.folder import Package
    from .pipeline.apps import bundle_packages, export_default, read_index

    if app not in APPS:
        raise unknown_name("app", app, APPS)

    with tempfile.TemporaryDirectory() as scratch, steps() as step:
        if not packages and require_signature:
            raise SepViTError("--require-signature is for packages that are given; name them")
        if not packages:
            step("exporting SepViT-Lite in int8")
            packages = [export_default(app, Path(scratch))]
        folder = bundle_packages(packages, app, project, require_signature)
    rows, documents = [], []
    for package in map(Package, read_index(folder)):
        name, manifest = package.path.name, package.manifest
        target, precision = manifest.target, manifest.precision
        size = sum(path.stat().st_size for path in package.path.rglob("*") if path.is_file())
        rows.append([name, target, precision, f"{size / 1e6:.2f}"])
        documents.append({"package": name, "target": target, "precision": precision, "bytes": size})
    if json:
        emit_json({"folder": str(folder), "packages": documents})
    else:
        print_columns(["package", "target", "precision", "MB"], rows)


if __name__ == "__main__":
    main()
