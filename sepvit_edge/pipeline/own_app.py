"""Packages and an app's core in an app of the user's own: `bundle --into`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import SepViTError, unknown_name
from ..files import replacing_file
from ..package.signature import Keys
from .apps import INDEX, copy_packages, open_packages

_REPOSITORY = Path(__file__).parents[2]
_SCHEMA = "manifest.schema.json"
# How the web core's sources name the schema, which lies elsewhere in this repository.
_SCHEMA_IMPORT = re.compile(r'"(?:\.\./)+export/(manifest-[\d.]+\.schema\.json)"')


@dataclass(frozen=True)
class OwnApp:
    """Where an app of a user's own has packages and sources.

    Attributes
    ----------
    what : str
        The folder that is asked for.
    marks : tuple of str
        Patterns of files and folders of which such a folder has at least one.
    packages : str
        Folder of the packages.
    core : str
        Folder of the core's sources.
    next : tuple of str
        What is left to do; `{...}` are versions of libraries.
    """

    what: str
    marks: tuple[str, ...]
    packages: str
    core: str
    next: tuple[str, ...]


OWN_APPS = {
    "android": OwnApp(
        "the folder of a Gradle module (build.gradle.kts)",
        ("build.gradle.kts", "build.gradle"),
        "src/main/assets/packages",
        "src/main/kotlin/sepvit/edge",
        (
            'add to its plugins: kotlin("plugin.serialization") version "{kotlin}"',
            "add to its dependencies: {libraries}",
            "run: ./gradlew assembleDebug",
        ),
    ),
    "ios": OwnApp(
        "the folder of an Xcode project (*.xcodeproj, project.yml)",
        ("*.xcodeproj", "*.xcworkspace", "project.yml"),
        "packages",
        "SepViTKit",
        (
            "in Xcode, File > Add Package Dependencies > Add Local: SepViTKit",
            "in Xcode, add the folder packages to the target as a folder reference",
        ),
    ),
    "web": OwnApp(
        "the folder of an npm package (package.json)",
        ("package.json",),
        "public/packages",
        "src/sepvit-edge",
        ("run: npm install {npm}",),
    ),
}


@dataclass(frozen=True)
class Placed:
    """What was put into an app.

    Attributes
    ----------
    packages, core : Path
        Folders of the packages and of the core's sources.
    next : list of str
        What is left to do, a line each.
    """

    packages: Path
    core: Path
    next: list[str]


def put_into(
    packages: Sequence[str | Path],
    app: str,
    folder: str | Path,
    force: bool = False,
    trust: Keys | None = None,
) -> Placed:
    """Put packages and the core that runs them into an app of the user's own.

    Parameters
    ----------
    packages : sequence of str or Path
        Their folders.
    app : str
        A key of `OWN_APPS`: the platform.
    folder : str or Path
        The app's folder, as `OWN_APPS` describes it.
    force : bool
        Whether to replace packages and sources that are there and differ.
    trust : path or sequence of paths, optional
        Files of public keys of which one must have signed each package.

    Raises
    ------
    SepViTError
        If a package or the folder cannot be used, or something there would be overwritten; nothing
        is changed then.
    """
    if app not in OWN_APPS:
        raise unknown_name("app", app, OWN_APPS)
    facts, root = OWN_APPS[app], Path(folder)
    if not root.is_dir() or not any(next(root.glob(mark), None) for mark in facts.marks):
        raise SepViTError(f"{root} is not {facts.what}; give --into one")
    opened = open_packages(packages, app, trust)
    targets = {package.manifest.target for package in opened}
    held, core = root / PurePosixPath(facts.packages), root / PurePosixPath(facts.core)
    files = {core / PurePosixPath(path): data for path, data in _SOURCES[app](targets).items()}
    if not force:
        _refuse_overwriting(held, files)
    _refuse_obstacles(root, held, files)
    copy_packages(opened, held, trust)
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as partial:
            partial.write_bytes(data)
    versions = _versions(app, targets)
    return Placed(held, core, [line.format(**versions) for line in facts.next])


def _refuse_obstacles(root: Path, held: Path, files: Iterable[Path]) -> None:
    """Refuse a file where a folder is to be, and the reverse."""
    folders = {held} | {parent for path in [held, *files] for parent in path.parents}
    for path in sorted(folders - {root, *root.parents}):
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise SepViTError(f"{path} is a file, where a folder is to be; move it away")
    for path in files:
        if path.is_dir():
            raise SepViTError(f"{path} is a folder, where a file is to be; move it away")


def _refuse_overwriting(held: Path, files: dict[Path, bytes]) -> None:
    if (held / INDEX).exists():
        raise SepViTError(f"{held} has packages already; add --force to replace them")
    for path, data in files.items():
        if path.is_file() and path.read_bytes() != data:
            raise SepViTError(f"{path} is there and differs; add --force to replace it")


def _sources(folder: str) -> dict[str, bytes]:
    """Return the files below a folder of the repository, by their path in it."""
    root = _REPOSITORY / folder
    if not root.is_dir():
        raise SepViTError(
            f"{root} is missing: the cores are not in the installed program; run it from a clone "
            "of the repository"
        )
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


_ENGINES = {"executorch": "ExecuTorchEngine.kt", "onnxruntime": "OnnxRuntimeEngine.kt"}


def _android(targets: set[str]) -> dict[str, bytes]:
    """Return the core, and an engine for each target; they keep their package names."""
    sources = _sources("apps/android/core/src/main/kotlin/sepvit/edge")
    engines = _sources("apps/android/app/src/main/kotlin/sepvit/edge/app/engine")
    for target in targets:
        sources[f"app/engine/{_ENGINES[target]}"] = engines[_ENGINES[target]]
    return sources


def _ios(_: set[str]) -> dict[str, bytes]:
    """Return SepViTKit without its tests; the schema, a link here, is a file there."""
    kit = "apps/ios/SepViTKit"
    sources = {f"Sources/SepViTKit/{k}": v for k, v in _sources(f"{kit}/Sources/SepViTKit").items()}
    manifest = (_REPOSITORY / kit / "Package.swift").read_text(encoding="utf-8")
    without_tests = "\n".join(
        line
        for line in manifest.split("\n#if os(Linux)")[0].rstrip().splitlines()
        if ".testTarget(" not in line
    )
    return sources | {"Package.swift": f"{without_tests}\n".encode()}


def _web(_: set[str]) -> dict[str, bytes]:
    """Return the core, with the manifest's schema beside it."""
    sources, schema = _sources("apps/web/src/core"), ""
    for path, data in sources.items():
        text = data.decode()
        if found := _SCHEMA_IMPORT.search(text):
            schema = found[1]
            sources[path] = _SCHEMA_IMPORT.sub(f'"./{_SCHEMA}"', text).encode()
    return sources | {_SCHEMA: (_REPOSITORY / "export" / schema).read_bytes()}


_SOURCES: dict[str, Callable[[set[str]], dict[str, bytes]]] = {
    "android": _android,
    "ios": _ios,
    "web": _web,
}


def _versions(app: str, targets: set[str]) -> dict[str, str]:
    """Return the libraries that the core needs, in the versions that are tested here."""
    apps = _REPOSITORY / "apps"
    if app == "android":
        catalog = (apps / "android/gradle/libs.versions.toml").read_text(encoding="utf-8")
        found = dict(re.findall(r'(?m)^([\w-]+) = "([^"]+)"$', catalog))
        archives = {
            "executorch": "org.pytorch:executorch-android",
            "onnxruntime": "com.microsoft.onnxruntime:onnxruntime-android",
            "serialization": "org.jetbrains.kotlinx:kotlinx-serialization-json",
        }
        named = [
            f'"{archives[name]}:{found[name]}"' for name in ("serialization", *sorted(targets))
        ]
        return {"kotlin": found["kotlin"], "libraries": ", ".join(named)}
    if app == "web":
        listed = json.loads((apps / "web/package.json").read_text(encoding="utf-8"))["dependencies"]
        names = ("@cfworker/json-schema", "fast-png", "onnxruntime-web")
        return {"npm": " ".join(f"{name}@{listed[name]}" for name in names)}
    return {}
