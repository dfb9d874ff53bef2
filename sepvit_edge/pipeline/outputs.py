"""Logits of a package, and of the models that it is compared with, on the same images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from ..data.overlap import refuse_seen
from ..data.preprocess import preprocess
from ..data.sample import SAMPLE_SEED, Taken
from ..errors import SepViTError
from ..model.logits import reference_logits, torch_threads
from ..model.reference import SepViT
from ..package.folder import Package
from ..package.manifest import Selection
from ..quantization.interface import ProgramQuantization
from .kept import KeptLogits, key_of
from .reading import Engine, run_here

# Each says it once, and commands show it as a warning.
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Logits of some images that follow each other.

    Attributes
    ----------
    places : list of int
        Their places in the data.
    labels : list
        Index of each image's class; None where it is not known.
    logits : dict of str to numpy.ndarray
        (N, num_classes) by model: `logits` are the package's, `reference` the fp32 reference's,
        `quantized` those of an int8 package's integers in torch, `on_cpu` an NPU package's on the
        CPU, `here` this machine's beside those of a device. The first is always there.
    """

    places: list[int]
    labels: list[int | None]
    logits: dict[str, np.ndarray]


@dataclass(frozen=True)
class RunFacts:
    """What a package was run on.

    Attributes
    ----------
    data : str
        Name of the images.
    broken : dict of int to str
        Places of the images that cannot be read, and why; they have no logits.
    data_sha256 : str
        SHA-256 of the SHA-256 of the pixels of each image, as the models took them.
    selection : Selection
        Which images of the data they are.
    """

    data: str
    broken: dict[int, str]
    data_sha256: str
    selection: Selection


class Runs(Protocol):
    """What runs a package: this machine (`PackageSession`), or a device."""

    @property
    def package(self) -> Package:
        """The package."""
        ...

    @property
    def images_at_once(self) -> int:
        """Number of images that are read and run together."""
        ...

    def run_pixels(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the outputs, logits first."""
        ...

    def run_on_cpu(self, pixels: np.ndarray) -> list[np.ndarray] | None:
        """Return what the CPU computes of an NPU package."""
        ...


@dataclass(frozen=True)
class _Piece:
    """What the models compute for some images that follow each other.

    Attributes
    ----------
    broken : dict of int to str
        Places of the images in the piece that cannot be read, and why.
    digests : list of bytes
        SHA-256 of the pixels of each of the others.
    logits : dict of str to numpy.ndarray, or None
        By model; None if they are kept already, or no image can be read.
    """

    broken: dict[int, str]
    digests: list[bytes]
    logits: dict[str, np.ndarray] | None


@dataclass(frozen=True)
class _RunImages:
    """The work on each piece of images; see `run_images`."""

    session: Runs
    data: Taken
    model: SepViT | None
    quantization: ProgramQuantization | None
    here: Runs | None
    threads: int | None
    kept: frozenset[bytes]

    @property
    def parallel(self) -> bool:
        return self.data.parallel

    @cached_property
    def _rounds_to(self) -> Callable[[np.ndarray], np.ndarray] | None:
        if self.model is None or self.quantization is None:
            return None
        return self.quantization.reference(self.model)

    def read(self, index: int) -> np.ndarray | str:
        package = self.session.package
        try:
            image = self.data[index].image
            return preprocess(image, package.preprocessing, package.manifest.model.image_size)
        except SepViTError as error:
            return str(error)

    def run(self, piece: Sequence[np.ndarray | str]) -> _Piece:
        broken = {place: each for place, each in enumerate(piece) if isinstance(each, str)}
        good = [each for each in piece if not isinstance(each, str)]
        digests = [hashlib.sha256(each.data).digest() for each in good]
        logits = None
        if good and key_of(digests) not in self.kept:
            with torch_threads(self.threads) if self.threads else nullcontext():
                logits = self._logits(np.stack(good))
        return _Piece(broken, digests, logits)

    def _logits(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        logits = {"logits": self.session.run_pixels(pixels)[0]}
        if self.here is not None:
            logits["here"] = self.here.run_pixels(pixels)[0]
        if self.model is not None:
            logits["reference"] = reference_logits(self.model, pixels)
            if (outputs := self.session.run_on_cpu(pixels)) is not None:
                logits["on_cpu"] = outputs[0]
        if self._rounds_to is not None:
            logits["quantized"] = self._rounds_to(pixels)
        return logits


def run_images(
    session: Runs,
    data: Taken,
    model: SepViT | None = None,
    quantization: ProgramQuantization | None = None,
    advance: Callable[[int], None] = lambda _: None,
    *,
    take: Callable[[Rows], None],
    skip_broken: bool = False,
    kept: KeptLogits | None = None,
    here: Runs | None = None,
    threads: int | None = None,
    engine: Engine = run_here,
) -> RunFacts:
    """Run a package on images, beside its reference if that is known.

    Memory does not grow with the number of images.

    Parameters
    ----------
    session : Runs
        The package, here or on a device.
    data : Taken
        Images that were neither trained nor calibrated on.
    model : SepViT, optional
        The reference with the same weights.
    quantization : ProgramQuantization, optional
        With `model`: integers and scales of an int8 package.
    advance : callable
        Called with the number of images done, for a progress bar.
    take : callable
        Called with the logits of each piece of images, in order.
    skip_broken : bool
        Whether to leave out images that cannot be read, and to log each as a warning.
    kept : KeptLogits, optional
        Logits of an earlier run that was interrupted; new ones are added.
    here : Runs, optional
        The package on this machine, to compare a device with.
    threads : int, optional
        Threads of torch. Default: those that are set.
    engine : callable
        Where the work is done. Default: in this process.

    Raises
    ------
    CheckFailed
        If the package's model was trained on some of the images.
    SepViTError
        If an image cannot be read and is not to be left out, or none can be read.
    """
    manifest = session.package.manifest
    if manifest.task != "classification":
        raise SepViTError(
            f"{session.package.path} is for {manifest.task}; accuracy is measured of classifiers"
        )
    refuse_seen(data, manifest.source.trained_on)
    known = frozenset() if kept is None else kept.keys
    work = _RunImages(session, data, model, quantization, here, threads, known)
    digest, broken, done = hashlib.sha256(), {}, 0
    for piece in engine(range(len(data)), work, session.images_at_once):
        places = range(done, done + len(piece.broken) + len(piece.digests))
        done += len(places)
        advance(len(places))
        for i, sentence in piece.broken.items():
            if not skip_broken:
                raise SepViTError(sentence)
            broken[places[i]] = sentence
            _log.warning(sentence)
        if not piece.digests:
            continue
        digest.update(b"".join(piece.digests))
        logits = piece.logits
        if kept is not None:
            logits = kept.exchange(piece.digests, logits)
        assert logits is not None
        good = [place for place in places if place not in broken]
        take(Rows(good, [data.label(place) for place in good], logits))
    if len(broken) == len(data):
        raise SepViTError(f"none of the {len(data)} images of {data.name} can be read")
    selection = selection_of(data)
    if broken:
        left_out = selection.left_out | {"damaged": len(broken)}
        selection = selection.model_copy(update={"left_out": left_out})
    return RunFacts(data.name, broken, digest.hexdigest(), selection)


def selection_of(taken: Taken) -> Selection:
    """Describe a sample for results and manifests."""
    whole = len(taken) == taken.available
    over = "classes" if taken.labelled else "the set"
    return Selection(
        available=taken.available,
        rule="all" if whole else f"evenly over {over}",
        seed=None if whole else SAMPLE_SEED,
        class_rule=taken.class_rule,
        left_out=taken.left_out,
    )
