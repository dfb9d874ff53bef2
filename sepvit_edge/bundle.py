"""Put packages into an app: `python -m sepvit_edge.bundle PACKAGE... --app android`.

Without a package: the built-in SepViT-Lite in int8, for the app's first runtime. `--into FOLDER`
puts packages and the core that runs them into an app of your own. With `--require-signature` the
app, too, refuses packages that none of the keys has signed.
"""

from __future__ import annotations

import shlex
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
    into: Annotated[
        Path | None,
        typer.Option(
            help="Folder of your own app: put the packages and the sources of the core into it."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option(help="With --into: replace packages and sources that are there.")
    ] = False,
    require_signature: RequireSignature = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Put packages into an app, replacing those that it has.

    Every package is checked first, and refused if the app has no runtime for it. With
    --require-signature the app, too, opens no package that none of the keys has signed.
    """
    from .errors import SepViTError, unknown_name
    from .package.folder import Package
    from .pipeline.apps import bundle_packages, export_default, project_of, read_index
    from .pipeline.own_app import put_into

    if app not in APPS:
        raise unknown_name("app", app, APPS)
    if into and project:
        raise SepViTError("--project is for the repository's apps, --into for your own; give one")
    if force and not into:
        raise SepViTError("--force is for --into; without it packages are always replaced")

    with tempfile.TemporaryDirectory() as scratch, steps() as step:
        if not packages and require_signature:
            raise SepViTError("--require-signature is for packages that are given; name them")
        if not packages:
            step("exporting SepViT-Lite in int8")
            packages = [export_default(app, Path(scratch))]
        core = None
        if into:
            placed = put_into(packages, app, into, force, require_signature)
            folder, core, left = placed.packages, placed.core, placed.next
        else:
            folder = bundle_packages(packages, app, project, require_signature)
            left = [f"run: cd {shlex.quote(str(project_of(app, project)))} && {APPS[app].next}"]
    rows, documents = [], []
    for package in map(Package, read_index(folder)):
        name, manifest = package.path.name, package.manifest
        target, precision = manifest.target, manifest.precision
        size = sum(path.stat().st_size for path in package.path.rglob("*") if path.is_file())
        rows.append([name, manifest.task, target, precision, f"{size / 1e6:.2f}"])
        facts = {"task": manifest.task, "target": target, "precision": precision, "bytes": size}
        documents.append({"package": name} | facts)
    if json:
        places = {"folder": str(folder), "core": None if core is None else str(core)}
        emit_json(places | {"packages": documents, "next": left})
    else:
        print_columns(["package", "task", "target", "precision", "MB"], rows)
        typer.echo(f"packages: {folder}")
        if core is not None:
            typer.echo(f"core: {core}")
        for line in left:
            typer.echo(line if line.startswith("run: ") else f"next: {line}")


if __name__ == "__main__":
    main()
