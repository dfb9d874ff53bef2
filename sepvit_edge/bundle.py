"""Put packages into an app: `python -m sepvit_edge.bundle PACKAGE... --app android`.

Without a package: the built-in SepViT-Lite in int8, for the app's first runtime.
"""

from __future__ import annotations

import json as json_module
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from .cli.console import command, emit_json, print_columns, steps
from .errors import SepViTError, unknown_name

if TYPE_CHECKING:
    from .package.folder import Package

INDEX = "index.json"
# Keeps the empty folder in the repository.
_KEEP = ".gitkeep"


@dataclass(frozen=True)
class App:
    """An app that packages can be put into.

    Attributes
    ----------
    folder : str
        Where its build picks packages up, below the app's project.
    targets : tuple of str
        The runtimes that it has; the first is its own choice.
    """

    folder: str
    targets: tuple[str, ...]


APPS = {
    "android": App("app/src/main/assets/packages", ("executorch", "onnxruntime")),
    "ios": App("SepViTDemo/packages", ("coreml",)),
    "web": App("public/packages", ("onnxruntime",)),
}


def bundle_packages(
    packages: Sequence[str | Path], app: str, project: str | Path | None = None
) -> Path:
    """Check packages and put them into an app, in place of those that are there.

    Parameters
    ----------
    packages : sequence of str or Path
        Their folders, in the order in which the app shows them.
    app : str
        A key of `APPS`.
    project : str or Path, optional
        The app's project; the one in this repository unless given.

    Returns
    -------
    Path
        The folder with the packages and index.json; apps/README.md describes it.

    Raises
    ------
    SepViTError
        If a package is damaged or the app cannot run it, or there is no such project; nothing is
        changed then.
    """
    from .package.folder import Package

    if app not in APPS:
        raise unknown_name("app", app, APPS)
    if not packages:
        raise SepViTError("give at least one package to bundle")
    root = Path(project) if project else Path(__file__).parent.parent / "apps" / app
    if not root.is_dir():
        raise SepViTError(f"there is no project {root}; give the app's folder by --project")
    opened = [Package(path) for path in packages]
    names = [package.path.resolve().name for package in opened]
    for package, name in zip(opened, names, strict=True):
        target = package.manifest.target
        if target not in APPS[app].targets:
            raise SepViTError(
                f"{package.path} is for {target}, which the {app} app does not have; "
                f"export for {' or '.join(APPS[app].targets)}"
            )
        if names.count(name) > 1:
            raise SepViTError(f"two packages are called {name!r}; rename one of the folders")
        if name.startswith("."):
            raise SepViTError(f"a package cannot be called {name!r} in an app; rename the folder")
    destination = root / PurePosixPath(APPS[app].folder)
    held = {path.name for path in destination.iterdir()} if destination.is_dir() else set()
    if held - {_KEEP} and INDEX not in held:
        raise SepViTError(f"{destination} holds something else and is not replaced; move it away")
    partial = destination.parent / ".packages.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        entries = [
            _copy(package, partial / name) for package, name in zip(opened, names, strict=True)
        ]
        document = json_module.dumps({"packages": entries}, indent=2, ensure_ascii=False)
        (partial / INDEX).write_text(document + "\n", encoding="utf-8")
        if _KEEP in held:
            (partial / _KEEP).touch()
        shutil.rmtree(destination, ignore_errors=True)
        partial.rename(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return destination


def export_default(app: str, folder: Path) -> Path:
    """Export what an app has unless told otherwise: SepViT-Lite in int8, so that it stays small.

    Parameters
    ----------
    app : str
        A key of `APPS`.
    folder : Path
        Where to put the package.

    Raises
    ------
    SepViTError
        If there is no such app, or its runtime is not installed.
    """
    from .checkpoints.builtin import default_checkpoint
    from .checkpoints.files import load_checkpoint
    from .pipeline.export import export_package

    if app not in APPS:
        raise unknown_name("app", app, APPS)
    target = APPS[app].targets[0]
    model = load_checkpoint(default_checkpoint("lite"))
    output = folder / f"{model.config.variant}-{target}-int8"
    return export_package(model, target, "int8", output).path


def _copy(package: Package, destination: Path) -> dict[str, object]:
    """Copy the files that the manifest lists, and no others; return their entry in the index."""
    from .package.manifest import MANIFEST

    files = [MANIFEST, *sorted(file.path for file in package.manifest.files)]
    for path in files:
        target = destination / PurePosixPath(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package.path / PurePosixPath(path), target)
    return {"folder": destination.name, "files": files}


@command
def main(
    app: Annotated[str, typer.Option(help=f"Which app: {', '.join(APPS)}.")],
    packages: Annotated[
        list[Path] | None,
        typer.Argument(help="Packages' folders, in the order to show them; SepViT-Lite in int8."),
    ] = None,
    project: Annotated[
        Path | None, typer.Option(help="The app's project; this repository's unless given.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Put packages into an app, in place of those that it has.

    Every package is checked first, and refused if the app has no engine for it.
    """
    from .package.folder import Package

    with tempfile.TemporaryDirectory() as scratch, steps() as step:
        if not packages:
            step("exporting SepViT-Lite in int8")
            packages = [export_default(app, Path(scratch))]
        destination = bundle_packages(packages, app, project)
    index = json_module.loads((destination / INDEX).read_text(encoding="utf-8"))
    bundled = []
    for entry in index["packages"]:
        package = Package(destination / entry["folder"])
        bundled.append(
            {
                "package": entry["folder"],
                "target": package.manifest.target,
                "precision": package.manifest.precision,
                "bytes": sum((package.path / file).stat().st_size for file in entry["files"]),
            }
        )
    if json:
        emit_json({"folder": str(destination), "packages": bundled})
        return
    rows = [
        [str(b["package"]), str(b["target"]), str(b["precision"]), f"{b['bytes'] / 1e6:.2f}"]
        for b in bundled
    ]
    print_columns(["package", "target", "precision", "MB"], rows)


if __name__ == "__main__":
    main()
