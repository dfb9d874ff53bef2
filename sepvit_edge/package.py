"""The deployable folder: manifest.json, model files, labels.txt, golden.safetensors.

A package says what it is, how it was made and how far it is from the reference, and is refused when
a bit of it has changed. Its bytes depend on its inputs alone: no dates, host names or paths.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from packaging.version import InvalidVersion, Version
from PIL import Image
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .data.preprocess import preprocess
from .errors import CheckFailed, SepViTError
from .files import file_sha256
from .recipe import Precision, Recipe, Strict, first_fault
from .variants import Preprocessing, Source

if TYPE_CHECKING:
    from .backends import OpTiming, Runtime, Session

SCHEMA_VERSION = 1
MANIFEST, LABELS, GOLDEN = "manifest.json", "labels.txt", "golden.safetensors"
_FULL_BELOW = 1 << 16  # bytes
_DIGEST_LINE = re.compile(rb'"digest": "([0-9a-f]{64})"')


class ModelFacts(Strict):
    """What the network is.

    Attributes
    ----------
    variant, name : str
        Key and published name.
    num_classes, image_size, parameters, macs : int
        MACs of one image.
    """

    variant: str
    name: str
    num_classes: int
    image_size: int
    parameters: int
    macs: int


class InputFacts(Strict):
    """What the model takes, and how an image becomes it.

    Attributes
    ----------
    name, shape, dtype, layout : str, list of int, str, str
        Of the tensor.
    color_order : str
        Always RGB.
    value_range : tuple of int
        Of a pixel, whatever the dtype.
    resize_rule, resize_shorter_side, crop_size
        Pillow's antialiased BILINEAR on the shorter side, then the centre square.
    mean, std : tuple of float
        Per channel, for pixels scaled to 0..1.
    inside_graph : list of str
        Which steps the graph does itself; the caller does the others.
    """

    name: str
    shape: list[int]
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    color_order: Literal["RGB"] = "RGB"
    value_range: tuple[int, int] = (0, 255)
    resize_rule: Literal["pillow-bilinear-antialias"] = "pillow-bilinear-antialias"
    resize_shorter_side: int
    crop_size: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    inside_graph: tuple[Literal["scale", "normalize"], ...] = ("scale", "normalize")


class OutputFacts(Strict):
    """What the model gives: logits, before softmax."""

    name: str
    shape: list[int]
    dtype: Literal["float32"] = "float32"


class RuntimeFacts(Strict):
    """Which runtime opens the package; ``minimum <= version < below``."""

    name: str
    version: str
    minimum: str
    below: str


class SourceFacts(Strict):
    """Which weights went in; see `sepvit_edge.variants.Source`."""

    weights_sha256: str
    file_sha256: str | None
    file_size: int | None
    trained_on: str | None


class FloatLayer(Strict):
    """A layer that quantisation left in float, and why."""

    name: str
    reason: str


class QuantizationFacts(Strict):
    """The quantisation scheme, and where its scales come from.

    Attributes
    ----------
    scheme : str
        `sepvit_edge.quantize.SCHEME`.
    trained : bool
        Whether the weights were trained quantisation-aware; else they were only calibrated.
    float_layers : list of FloatLayer
        What is not in int8.
    calibration_data : str
        What the activations' scales were measured on.
    calibration_images : int
        How many.
    calibration_sha256 : str
        Over their preprocessed pixels.
    """

    scheme: str
    trained: bool
    float_layers: list[FloatLayer]
    calibration_data: str
    calibration_images: int
    calibration_sha256: str


class PlacedOps(Strict):
    """Operations that run in one place and one precision.

    Attributes
    ----------
    where : str
        Delegate, plugin or kernel library.
    precision : str
        The runtime's name of it.
    accelerated : bool
        Whether this is the target's own unit (and not a fallback).
    ops : int
        Operations after the runtime's fusions.
    macs_share : float
        Share of the network's multiply-accumulates, 0..1.
    kinds : dict
        Operations by type.
    """

    where: str
    precision: str
    accelerated: bool
    ops: int
    macs_share: float
    kinds: dict[str, int]


class OutsideOp(Strict):
    """An operation that did not go where the target wants it.

    Attributes
    ----------
    name, kind : str
        Of the operation.
    part : str or None
        Stage, block and part it belongs to.
    reason : str
        The likely reason.
    """

    name: str
    kind: str
    part: str | None
    reason: str


class Estimate(Strict):
    """What a tool chain's compiler expects of a device; nothing that was measured.

    Attributes
    ----------
    what : str
        ``"latency"``, ``"SRAM"`` ...
    value : float
        In `unit`.
    unit : str
        ``"ms"``, ``"MB"`` ...
    source : str
        The tool, its version, and the device and memory that it assumed.
    """

    what: str
    value: float
    unit: str
    source: str


class Placement(Strict):
    """Which operation runs where."""

    device: str
    placed: list[PlacedOps]
    outside: tuple[OutsideOp, ...] = ()
    macs_unattributed: float = 0.0
    estimates: tuple[Estimate, ...] = ()


class Parity(Strict):
    """Distance between a package and the fp32 reference; see `sepvit_edge.parity`.

    Attributes
    ----------
    data : str
        Name of the data set.
    data_sha256 : str
        Over its images' content.
    images : int
        How many were compared.
    max_abs_error : float
        Of the logits.
    logits_range : float
        Largest minus smallest logit of the reference.
    sqnr_db : float
        Signal-to-quantisation-noise ratio of the logits.
    top1_agreement : float
        Share of images on which both name the same class, 0..1.
    top1_reference, top1_package : float or None
        Top-1 accuracy, 0..1, where the data has labels.
    top1_difference : float or None
        Package minus reference.
    top1_difference_interval : tuple of float or None
        Its 95 % confidence interval (paired).
    mcnemar_p : float or None
        Exact McNemar test of the two accuracies being equal.
    sqnr_quantized_db : float or None
        Of an int8 package: the same ratio against the quantised edge form as torch computes it,
        which leaves the runtime's own rounding.
    sqnr_cpu_db : float or None
        Of a package for an NPU whose model file a CPU runs too: the same ratio against that, which
        leaves the NPU's own arithmetic.
    """

    data: str
    data_sha256: str
    images: int
    max_abs_error: float
    logits_range: float
    sqnr_db: float
    top1_agreement: float
    top1_reference: float | None = None
    top1_package: float | None = None
    top1_difference: float | None = None
    top1_difference_interval: tuple[float, float] | None = None
    mcnemar_p: float | None = None
    sqnr_quantized_db: float | None = None
    sqnr_cpu_db: float | None = None


class PackageFile(Strict):
    """A file of the package, by its path inside the folder."""

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


# How a package's logits came about when it was checked:
#   run               by the runtime, as on the device
#   emulated          by the vendor's emulation of the device
#   reference model   by the reference model of the device's instruction set
#   simulated         by the vendor's simulator of the operations
#   evaluated         by an evaluator of our own, operation by operation
#   compiled          not at all: the tool chain accepted the model, nothing was computed
Verification = Literal["run", "emulated", "reference model", "simulated", "evaluated", "compiled"]


class Manifest(Strict):
    """manifest.json. Its JSON Schema is export/manifest.schema.json.

    `verification` says how parity was measured, and so what it proves about the device.
    `digest` is the SHA-256 of manifest.json itself with the digest's 64 characters set to zero, so
    that any language can check it without writing JSON again.
    """

    schema_version: int
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    model: ModelFacts
    input: InputFacts
    output: OutputFacts
    target: str
    precision: Precision
    quantization: QuantizationFacts | None
    runtime: RuntimeFacts
    versions: dict[str, str]
    recipe: Recipe
    source: SourceFacts
    files: list[PackageFile]
    placement: Placement
    verification: Verification = "run"
    parity: Parity | None


class Package:
    """A package on disk whose every byte was checked.

    Parameters
    ----------
    path : str or Path
        The folder.

    Raises
    ------
    SepViTError
        If it is damaged or not for this version; the sentence says why.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        for file in self.manifest.files:
            _check_file(self.path, file)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple((self.path / LABELS).read_text(encoding="utf-8").splitlines())

    @property
    def preprocessing(self) -> Preprocessing:
        """The rule from an image to the input."""
        facts = self.manifest.input
        return Preprocessing(facts.crop, facts.mean, facts.std)

    @property
    def size(self) -> int:
        """Bytes of the model files."""
        return sum(f.size for f in self.manifest.files if f.path not in (LABELS, GOLDEN))

    def golden(self) -> dict[str, np.ndarray]:
        """Return the golden vectors: ``image.0 ...``, ``pixels``, and both models' logits."""
        try:
            return load_file(self.path / GOLDEN)
        except (SafetensorError, ValueError) as error:
            raise SepViTError(f"{self.path / GOLDEN} cannot be read: {error}") from None


def _read_manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise SepViTError(f"there is no package {folder}")
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise SepViTError(f"{folder} is no package: it has no {MANIFEST}") from None
    try:
        document = json.loads(data)
        schema = document["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise SepViTError(
            f"{folder / MANIFEST} is damaged: it is no manifest; export again"
        ) from None
    if schema != SCHEMA_VERSION:
        raise SepViTError(
            f"{folder} has manifest schema {schema}, this version reads {SCHEMA_VERSION}; "
            "update sepvit-edge or export again"
        )
    # The digest first: a changed bit is damage, wherever it stands.
    if document.get("digest") != _digest(data):
        raise SepViTError(f"{folder / MANIFEST} was changed since it was exported; export again")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise SepViTError(f"{folder / MANIFEST} is not valid: {first_fault(error)}") from None


def _check_file(folder: Path, file: PackageFile) -> None:
    pure = PurePosixPath(file.path)
    path = folder / pure
    inside = folder.resolve() in path.resolve().parents
    if pure.is_absolute() or ".." in pure.parts or "\\" in file.path or not inside:
        raise SepViTError(f"{folder} names the file {file.path!r}, which leaves the folder")
    if not path.is_file():
        raise SepViTError(f"{folder} is incomplete: {file.path} is missing; export again")
    if path.stat().st_size != file.size or file_sha256(path) != file.sha256:
        raise SepViTError(f"{path} was changed since it was exported; export again")


def list_files(folder: Path) -> list[PackageFile]:
    """Every file of a package folder except its manifest, in order of path."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    return [
        PackageFile(
            path=p.relative_to(folder).as_posix(), sha256=file_sha256(p), size=p.stat().st_size
        )
        for p in paths
    ]


def _digest(data: bytes) -> str:
    return hashlib.sha256(_DIGEST_LINE.sub(b'"digest": "' + b"0" * 64 + b'"', data, 1)).hexdigest()


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.json with its own digest in it."""
    document = manifest.model_dump(mode="json") | {"digest": "0" * 64}
    data = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    data = data.replace(b"0" * 64, _digest(data).encode(), 1)
    (folder / MANIFEST).write_bytes(data)


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of manifest.json."""
    return Manifest.model_json_schema()


def check_runtime(runtime: Runtime) -> str:
    """Return the installed version of a runtime.

    Raises
    ------
    SepViTError
        If it is missing or outside the supported range.
    """
    if runtime.toolkit is not None:
        return runtime.toolkit.check()
    try:
        installed = version(runtime.distribution)
    except PackageNotFoundError:
        raise SepViTError(
            f"{runtime.distribution} is not installed; run: "
            f"pip install '{runtime.distribution}>={runtime.minimum},<{runtime.below}'"
        ) from None
    _check_range(runtime.distribution, installed, runtime.minimum, runtime.below)
    return installed


def _check_range(name: str, installed: str, minimum: str, below: str) -> None:
    try:
        fits = Version(minimum) <= Version(installed) < Version(below)
    except InvalidVersion as error:
        raise SepViTError(f"the manifest has an invalid version: {error}") from None
    if not fits:
        raise SepViTError(
            f"{name} {installed} is installed, but {minimum} or later and older than {below} is "
            f"needed; run: pip install '{name}>={minimum},<{below}'"
        )


class PackageSession:
    """A package that is loaded and takes images.

    Parameters
    ----------
    package : Package
        Checked.
    threads : int, optional
        Threads of the runtime; its own choice unless given.
    """

    def __init__(self, package: Package, threads: int | None = None) -> None:
        from .backends import BACKENDS, get_backend

        manifest = package.manifest
        backend = get_backend(manifest.target)
        installed = check_runtime(BACKENDS[manifest.target])
        facts = manifest.runtime
        _check_range(facts.name, installed, facts.minimum, facts.below)
        self.package = package
        self._session = backend.open(package.path, manifest, threads)

    def preprocess(self, images: Any) -> np.ndarray:
        """Turn images into input pixels.

        Parameters
        ----------
        images : numpy.ndarray, image, path, or a sequence of images and paths
            uint8 (N, H, W, 3) or (H, W, 3); PIL images; files.

        Returns
        -------
        numpy.ndarray
            uint8 (N, image_size, image_size, 3).
        """
        if isinstance(images, (str, Path, Image.Image)):
            images = [images]
        elif isinstance(images, np.ndarray) and images.ndim == 3:
            images = images[None]
        if len(images) == 0:
            raise SepViTError("there is no image to run")
        size = self.package.manifest.model.image_size
        rule = self.package.preprocessing
        return np.stack([preprocess(image, rule, size) for image in images])

    def run(self, images: Any) -> np.ndarray:
        """Classify images of any size.

        Parameters
        ----------
        images
            What `preprocess` takes.

        Returns
        -------
        numpy.ndarray
            Logits, float32 (N, num_classes).
        """
        return self.run_pixels(self.preprocess(images))[0]

    def run_pixels(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run preprocessed pixels; returns every output of the model, logits first.

        A package has a fixed batch: the last one is filled up with black images.
        """
        return self._run_batches(self._session, pixels)

    def run_on_cpu(self, pixels: np.ndarray) -> list[np.ndarray] | None:
        """Run the model file of a package for an NPU on the CPU; None where that cannot be done."""
        session = getattr(self._session, "on_cpu", None)
        return None if session is None else self._run_batches(session, pixels)

    def _run_batches(self, session: Session, pixels: np.ndarray) -> list[np.ndarray]:
        batch = self.package.manifest.input.shape[0]
        pieces: list[list[np.ndarray]] = []
        for start in range(0, len(pixels), batch):
            piece = pixels[start : start + batch]
            if len(piece) < batch:
                piece = np.concatenate(
                    [piece, np.zeros_like(piece[:1]).repeat(batch - len(piece), 0)]
                )
            pieces.append(session.run(self._as_input(piece)))
        if len(pieces) == 1 and batch == 1:
            return pieces[0]  # a tapped twin's other outputs have no axis of images
        return [np.concatenate(parts)[: len(pixels)] for parts in zip(*pieces, strict=True)]

    def _as_input(self, pixels: np.ndarray) -> np.ndarray:
        facts = self.package.manifest.input
        if facts.layout == "NCHW":
            pixels = pixels.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels, dtype=facts.dtype)

    def profile(self, pixels: np.ndarray, runs: int = 50) -> list[OpTiming]:
        """Time every operation over some runs of one batch of preprocessed pixels."""
        return self._session.profile(self._as_input(pixels), runs)


def open_package(path: str | Path, threads: int | None = None) -> PackageSession:
    """Check a package and load it.

    Parameters
    ----------
    path : str or Path
        The folder.
    threads : int, optional
        Threads of the runtime; its own choice unless given.

    Raises
    ------
    SepViTError
        If the package is damaged, its runtime missing or of the wrong version.
    """
    return PackageSession(Package(path), threads)


@contextmanager
def replacing(destination: Path, force: bool) -> Iterator[Path]:
    """Fill a folder beside `destination`, and move it there when the block ends well.

    An interrupted block leaves nothing at `destination`; what a killed process left beside it is
    removed by the next one.

    Raises
    ------
    SepViTError
        If `destination` exists and `force` is false, or cannot be written.
    """
    destination = destination.absolute()
    check_destination(destination, force)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(destination)
    partial = destination.parent / f".{destination.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        previous = destination.parent / f".{destination.name}.previous-{os.getpid()}"
        if destination.exists():
            os.rename(destination, previous)
        os.rename(partial, destination)
        shutil.rmtree(previous, ignore_errors=True)
    except Exception as error:
        # Each runtime reports a full disk in words of its own.
        if partial.exists() and shutil.disk_usage(partial).free < _FULL_BELOW:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination)) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_destination(destination: Path, force: bool) -> None:
    """Refuse an existing destination unless `force`, and one that is no package even then."""
    if not destination.exists() and not destination.is_symlink():
        return
    if not force:
        raise SepViTError(f"{destination} exists; give --force to replace it, or another --output")
    if not destination.is_dir() or destination.is_symlink():
        raise SepViTError(f"{destination} is not a folder; give another --output")
    if any(destination.iterdir()) and not (destination / MANIFEST).is_file():
        raise SepViTError(f"{destination} is no package and is not replaced; give another --output")


def _remove_leftovers(destination: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(destination.name)}\.(partial|previous)-(\d+)")
    for path in destination.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or _alive(int(match[2])):
            continue
        if match[1] == "previous" and not destination.exists():
            os.rename(path, destination)  # killed between the two renames
        else:
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def source_facts(source: Source) -> SourceFacts:
    """Put a model's source into the manifest's form."""
    return SourceFacts(
        weights_sha256=source.weights_sha256,
        file_sha256=source.file_sha256,
        file_size=source.file_size,
        trained_on=source.trained_on,
    )


def versions_used(distributions: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of some distributions."""
    return {name: version(name) for name in distributions}


def compare_packages(first: Path, second: Path) -> None:
    """Compare two packages byte by byte.

    Raises
    ------
    CheckFailed
        Naming the first file that differs or is in one of them only.
    """
    files = [
        {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
        for root in (first, second)
    ]
    # The manifest last: it holds the digests of the others.
    for name in sorted(files[0].keys() | files[1].keys(), key=lambda n: (n == MANIFEST, n)):
        if name not in files[0] or name not in files[1]:
            raise CheckFailed(f"{name} is in one of the two packages only")
        if files[0][name].read_bytes() != files[1][name].read_bytes():
            raise CheckFailed(f"{name} differs from what its recipe and weights give")


if __name__ == "__main__":
    json.dump(manifest_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
