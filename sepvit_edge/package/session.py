"""A package that is loaded and takes images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..backends.registry import RUNTIMES, get_backend
from ..backends.versions import check_range, check_runtime
from ..data.preprocess import fit_batch, preprocess_batch
from ..errors import SepViTError
from .folder import Package
from .signature import Keys

if TYPE_CHECKING:
    from ..backends.interface import OpTiming, Session


class PackageSession:
    """A package that is loaded and takes images.

    Parameters
    ----------
    package : Package
        The package.
    threads : int, optional
        Number of threads. Default: the runtime's own choice.

    Raises
    ------
    SepViTError
        If its runtime is missing or of the wrong version.

    Attributes
    ----------
    images_at_once : int
        Number of images that are worth reading ahead.
    """

    images_at_once = 16

    def __init__(self, package: Package, threads: int | None = None) -> None:
        manifest = package.manifest
        backend = get_backend(manifest.target)
        installed = check_runtime(RUNTIMES[manifest.target])
        facts = manifest.runtime
        check_range(facts.name, installed, facts.minimum, facts.below)
        self.package, self._threads = package, threads
        self._session = backend.open(package.path, manifest, threads)
        self._graphs = {}
        for graph in manifest.graphs or ():
            own = manifest.model_copy(update={"input": graph.input})
            self._graphs[graph.name] = backend.open(package.path / graph.name, own, threads)

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the same package again where this is unpickled, in another process."""
        return _open_same, (self.package.path, self.package.manifest.digest, self._threads)

    def preprocess(self, images: Any) -> np.ndarray:
        """Turn images into input pixels.

        Parameters
        ----------
        images : numpy.ndarray, image, path, or a sequence of images and paths
            Arrays of uint8 (N, H, W, 3) or (H, W, 3), PIL images, or paths of image files.

        Returns
        -------
        numpy.ndarray
            uint8 (N, image_size, image_size, 3); (N, height, width, 3) of a dense package.
        """
        if isinstance(images, (str, Path, Image.Image)):
            images = [images]
        elif isinstance(images, np.ndarray) and images.ndim == 3:
            images = images[None]
        if len(images) == 0:
            raise SepViTError("there is no image to run")
        model, rule = self.package.manifest.model, self.package.preprocessing
        if model.input_size is not None:
            return fit_batch(images, self.package.manifest.input.mean, model.input_size)
        return preprocess_batch(images, rule, model.image_size)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in the order of `run_pixels`."""
        return [output.name for output in self.package.manifest.outputs]

    def run_outputs(self, images: Any) -> dict[str, np.ndarray]:
        """Run images of any size, and return every output by its name.

        Parameters
        ----------
        images
            The images, as for `preprocess`.

        Returns
        -------
        dict
            float32 (N, ...), by the names of the manifest's outputs.
        """
        return dict(zip(self.output_names, self.run_pixels(self.preprocess(images)), strict=True))

    def run(self, images: Any) -> np.ndarray:
        """Classify images of any size.

        Parameters
        ----------
        images
            The images, as for `preprocess`.

        Returns
        -------
        numpy.ndarray
            Logits, float32 (N, num_classes).

        Raises
        ------
        SepViTError
            If the package is one for segmentation or detection.
        """
        task = self.package.manifest.task
        if task != "classification":
            raise SepViTError(
                f"{self.package.path} is for {task}, not a classifier; take run_outputs, which "
                "returns every output"
            )
        return self.run_pixels(self.preprocess(images))[0]

    def run_pixels(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run preprocessed pixels.

        A package has a fixed batch: the last one is filled up with black images.

        Parameters
        ----------
        pixels : numpy.ndarray
            uint8 (N, image_size, image_size, 3), as `preprocess` returns them.

        Returns
        -------
        list of numpy.ndarray
            Every output of the model, logits first.
        """
        return self._run_batches(self._session, pixels)

    def run_input(self, batch: np.ndarray) -> list[np.ndarray]:
        """Run one batch in the layout and dtype of the manifest's input."""
        return self._session.run(batch)

    def run_on_cpu(self, pixels: np.ndarray) -> list[np.ndarray] | None:
        """Run an NPU package's model file on the CPU; None if no CPU runtime opens it."""
        session = self._session.on_cpu
        return None if session is None else self._run_batches(session, pixels)

    def run_graph(self, name: str, x: np.ndarray) -> list[np.ndarray]:
        """Run a graph behind the first one.

        A call takes a fixed number of regions: the last one is filled up with zeros.

        Parameters
        ----------
        name : str
            The graph, by the manifest's `graphs`.
        x : numpy.ndarray
            float32 (N, ...), as the graph's input without its first axis.

        Returns
        -------
        list of numpy.ndarray
            Every output of it, (N, ...).
        """
        (facts,) = (graph for graph in self.package.manifest.graphs or () if graph.name == name)
        size, run = facts.input.shape[0], self._graphs[name].run
        pieces = [run(filled(x[start : start + size], size)) for start in range(0, len(x), size)]
        if not pieces:
            return [np.zeros((0, *output.shape[1:]), np.float32) for output in facts.outputs]
        return [np.concatenate(parts)[: len(x)] for parts in zip(*pieces, strict=True)]

    def _run_batches(self, session: Session, pixels: np.ndarray) -> list[np.ndarray]:
        batch = self.package.manifest.input.shape[0]
        pieces: list[list[np.ndarray]] = []
        for start in range(0, len(pixels), batch):
            piece = filled(pixels[start : start + batch], batch)
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


def filled(x: np.ndarray, size: int) -> np.ndarray:
    """Fill up the first axis of an array with zeros."""
    missing = size - len(x)
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x


def _open_same(path: Path, digest: str, threads: int | None) -> PackageSession:
    package = Package(path)
    if package.manifest.digest != digest:
        raise SepViTError(f"{path} is another package there than here; copy it anew")
    return PackageSession(package, threads)


def open_package(
    path: str | Path, threads: int | None = None, trust: Keys | None = None
) -> PackageSession:
    """Check a package and load it.

    Parameters
    ----------
    path : str or Path
        The folder.
    threads : int, optional
        Threads of the runtime. Default: chosen by the runtime.
    trust : path or sequence of paths, optional
        Files of public keys of which one must have signed the package.

    Raises
    ------
    SepViTError
        If the package is damaged or not signed as asked for, or its runtime is missing or of
        another version.

    Examples
    --------
    >>> import sepvit_edge
    >>> session = sepvit_edge.open_package("packages/lite-onnxruntime-fp32")
    >>> logits = session.run("photo.png")
    >>> logits.shape == (1, len(session.package.labels))
    True
    """
    return PackageSession(Package(path, trust), threads)
