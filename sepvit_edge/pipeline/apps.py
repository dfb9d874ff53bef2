"""Packages in an app: the folder of an app that holds them, and their index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import SepViTError, unknown_name

if TYPE_CHECKING:
    from ..package.folder import Package
    from ..package.signature import Keys

INDEX = "index.json"
DEFAULT_WEIGHTS = "lite-waste-qat"
# The public keys of which one must have signed every package that the app opens.
TRUST = "trust.pem"
# Git does not keep empty folders.
_KEEP = ".gitkeep"


@dataclass(frozen=True)
class App:
    """An app that can hold packages.

    Attributes
    ----------
    folder : str
        Folder of its packages, relative to the app's project.
    targets : tuple of str
        Its runtimes; the first is the default one.
    next : str
        What to run when its packages are in place, in the app's folder.
    """

    folder: str
    targets: tuple[str, ...]
    next: str


APPS = {
    "android": App(
        "app/src/main/assets/packages", ("executorch", "onnxruntime"), "gradle installDebug"
    ),
    "ios": App(
        "SepViTDemo/packages", ("coreml", "coreai"), "xcodegen && open SepViTDemo.xcodeproj"
    ),
    "web": App("public/packages", ("onnxruntime",), "npm ci --ignore-scripts && npm run dev"),
}


def bundle_packages(
    packages: Sequence[str | Path],
    app: str,
    project: str | Path | None = None,
    trust: Keys | None = None,
) -> Path:
    """Check packages and copy them into an app, replacing those that it has.

    Parameters
    ----------
    packages : sequence of str or Path
        Their folders, in the order in which the app shows them.
    app : str
        A key of `APPS`.
    project : str or Path, optional
        Folder of the app's project. Default: the one in this repository.
    trust : path or sequence of paths, optional
        Files of public keys of which one must have signed each package.

    Returns
    -------
    Path
        The folder with the packages and index.json; apps/README.md describes it.

    Raises
    ------
    SepViTError
        If a package is damaged, the app cannot run it, or there is no such project; the app is not
        changed.
    """
    if app not in APPS:
        raise unknown_name("app", app, APPS)
    root = project_of(app, project)
    if not root.is_dir():
        raise SepViTError(f"there is no project {root}; give the app's folder with --project")
    return copy_packages(
        open_packages(packages, app, trust), root / PurePosixPath(APPS[app].folder), trust
    )


def project_of(app: str, project: str | Path | None) -> Path:
    """Return the folder of an app's project. Default: the one in this repository."""
    return Path(project) if project else Path(__file__).parents[2] / "apps" / app


def open_packages(
    packages: Sequence[str | Path], app: str, trust: Keys | None = None
) -> list[Package]:
    """Check packages, and refuse those that an app cannot run.

    Raises
    ------
    SepViTError
        If there is none, one is damaged or for a runtime or task that the app does not have, or
        two have one name.
    """
    from ..package.folder import Package

    if not packages:
        raise SepViTError("give at least one package to bundle")
    opened = [Package(path, trust) for path in packages]
    names = [package.path.resolve().name for package in opened]
    targets = APPS[app].targets
    for package, name in zip(opened, names, strict=True):
        manifest = package.manifest
        if manifest.graphs:
            raise SepViTError(
                f"{package.path} is for {manifest.task}, which no app runs yet; `predict` does"
            )
        if manifest.target not in targets:
            raise SepViTError(
                f"{package.path} is for {manifest.target}, which the {app} app does not have; "
                f"export for {' or '.join(targets)}"
            )
        if app == "android" and len(models := _model_files(package)) > 1:
            raise SepViTError(
                f"{package.path} has {len(models)} model files, the android app loads one; "
                "export it for executorch"
            )
        if names.count(name) > 1:
            raise SepViTError(f"two packages are called {name!r}; rename one of the folders")
        if name.startswith(".") or name in (INDEX, TRUST):
            raise SepViTError(f"a package cannot be called {name!r} in an app; rename the folder")
    return opened


def copy_packages(opened: Sequence[Package], destination: Path, trust: Keys | None = None) -> Path:
    """Copy checked packages and write their index, in place of those that are there.

    With keys, the app asks for their signatures: they are written beside the packages.

    Raises
    ------
    SepViTError
        If the folder holds something else, or asks for signatures and no key is given; it is not
        changed then.
    """
    from ..package.signature import trusted_pem

    held = {path.name for path in destination.iterdir()} if destination.is_dir() else set()
    if held - {_KEEP} and INDEX not in held:
        raise SepViTError(
            f"{destination} holds something else; refusing to overwrite it, move it away"
        )
    if TRUST in held and trust is None:
        raise SepViTError(
            f"{destination / TRUST} asks for signatures; add --require-signature, or delete it"
        )
    partial = destination.parent / ".packages.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        entries = [_copy(package, partial / package.path.resolve().name) for package in opened]
        document = json.dumps({"packages": entries}, indent=2, ensure_ascii=False)
        (partial / INDEX).write_text(document + "\n", encoding="utf-8")
        if trust is not None:
            (partial / TRUST).write_text(trusted_pem(trust), encoding="ascii")
        if _KEEP in held:
            (partial / _KEEP).touch()
        shutil.rmtree(destination, ignore_errors=True)
        partial.rename(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return destination


def export_default(app: str, folder: Path) -> Path:
    """Export the package that an app holds by default: SepViT-Lite in int8, which is small.

    It knows kinds of waste, so a bottle held before the camera shows something.

    Parameters
    ----------
    app : str
        A key of `APPS`.
    folder : Path
        Folder to put the package into.

    Raises
    ------
    SepViTError
        If there is no such app, or its runtime is not installed.
    """
    from ..checkpoints.files import load_checkpoint
    from .export import export_package

    if app not in APPS:
        raise unknown_name("app", app, APPS)
    target = APPS[app].targets[0]
    model = load_checkpoint(DEFAULT_WEIGHTS)
    output = folder / f"{model.config.variant}-{target}-int8"
    return export_package(model, target, "int8", output).path


def _model_files(package: Package) -> list[str]:
    from ..package.manifest import GOLDEN, LABELS

    return [file.path for file in package.manifest.files if file.path not in (GOLDEN, LABELS)]


def _copy(package: Package, destination: Path) -> dict[str, object]:
    """Copy the files that the manifest lists and the signature; return their entry in the index."""
    from ..package.manifest import MANIFEST
    from ..package.signature import SIGNATURE

    files = [MANIFEST, *sorted(file.path for file in package.manifest.files)]
    if (package.path / SIGNATURE).is_file():
        files.append(SIGNATURE)
    for path in files:
        target = destination / PurePosixPath(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package.path / PurePosixPath(path), target)
    return {"folder": destination.name, "files": files}


def read_index(folder: Path) -> list[Path]:
    """Return the folders of an app's packages, in the order in which the app shows them."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return [folder / entry["folder"] for entry in index["packages"]]
