"""The table of runtimes: library, supported versions, extra.

`python -m sepvit_edge.backends.registry DISTRIBUTION...` prints pip's requirements, for scripts; it
needs the standard library only.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SepViTError, unknown_name
from .support.toolkit import Toolkit

if TYPE_CHECKING:
    from .interface import Backend


@dataclass(frozen=True)
class Runtime:
    """A runtime's library and the versions of it that packages work with.

    Attributes
    ----------
    distribution : str
        Its name on the package index.
    minimum, below : str
        The supported range, ``minimum <= version < below``.
    extra : str
        Extras of SepViT-Edge that install it; empty if the extra has the target's name.
    tools : tuple of str
        Other distributions that the packages' bytes depend on.
    npu : bool
        Whether it is for a unit that PCs lack: exported by name only, not with ``all``.
    toolkit : Toolkit or None
        A virtual environment for the runtime, or for the converter of its model files, if that
        cannot share this one.
    """

    distribution: str
    minimum: str
    below: str
    extra: str = ""
    tools: tuple[str, ...] = ()
    npu: bool = False
    toolkit: Toolkit | None = None

    @property
    def runs_in_toolkit(self) -> bool:
        """Whether the runtime itself is in the toolkit's environment."""
        return self.toolkit is not None and self.toolkit.distribution == self.distribution

    @property
    def requirement(self) -> str:
        """Requirement for pip, as ``openvino>=2026.4,<2026.5``."""
        return f"{self.distribution}>={self.minimum},<{self.below}"


# By target, which is also the name of the backend's file, with "_" for "-".
RUNTIMES = {
    # A beta, whose number alone apps do not tell from the release.
    "coreai": Runtime("coreai-core", "1.0.0b3", "1.0.1", tools=("coreai-torch",), npu=True),
    "coreml": Runtime("coremltools", "9.0", "9.1"),
    "ethos-u": Runtime(
        "executorch", "1.4.1", "1.5", tools=("ethos-u-vela", "tosa-tools"), npu=True
    ),
    "executorch": Runtime("executorch", "1.4.1", "1.5"),
    "executorch-coreml": Runtime(
        "executorch", "1.4.1", "1.5", extra="executorch,coreml", tools=("coremltools",), npu=True
    ),
    "executorch-vulkan": Runtime("executorch", "1.4.1", "1.5", extra="executorch", npu=True),
    "litert": Runtime(
        "ai-edge-litert",
        "2.3",
        "2.4",
        # It wants torch 2.14, and brings JAX.
        toolkit=Toolkit("litert-torch", "0.10.0", size_gb=6.6),
    ),
    "onnxruntime": Runtime("onnxruntime", "1.23", "1.32"),
    "openvino": Runtime("openvino", "2026.4", "2026.5"),
    "openvino-npu": Runtime("openvino", "2026.4", "2026.5", extra="openvino", npu=True),
    "qualcomm-htp": Runtime(
        "onnxruntime-qnn", "2.7", "2.8", extra="qualcomm", tools=("onnxruntime",), npu=True
    ),
    "rockchip": Runtime(
        "rknn-toolkit2",
        "2.5.0",
        "2.5.1",
        npu=True,
        # It imports pkg_resources, which later setuptools no longer have.
        toolkit=Toolkit("rknn-toolkit2", "2.5.0", ("setuptools<81",), size_gb=5.6),
    ),
}


# Those that segmentation and detection were lowered to and measured on.
DENSE_TARGETS = ("coreml", "executorch", "onnxruntime", "openvino")


def check_dense_target(target: str) -> None:
    """Refuse a target that has no segmentation and detection.

    Raises
    ------
    SepViTError
        Naming those that have.
    """
    if target in RUNTIMES and target not in DENSE_TARGETS:
        raise SepViTError(
            f"{target} has no segmentation or detection; targets that have: "
            f"{', '.join(DENSE_TARGETS)}"
        )


class MissingRuntime(SepViTError):
    """A runtime that is not installed; the sentence names the extra that installs it."""

    def __init__(self, library: str, target: str) -> None:
        extra = RUNTIMES[target].extra or target
        super().__init__(f"{library} is not installed; run: pip install 'sepvit-edge[{extra}]'")


def host_targets() -> list[str]:
    """Return the targets that a PC exports, and runs or evaluates, with what pip installs here.

    The others are for NPUs, or need an environment of several GB.

    Examples
    --------
    >>> host_targets()
    ['coreml', 'executorch', 'onnxruntime', 'openvino']
    """
    return [
        target
        for target, runtime in RUNTIMES.items()
        if not runtime.npu and runtime.toolkit is None
    ]


def toolkit_of(target: str) -> Toolkit:
    """Return the environment of a target that has one."""
    toolkit = RUNTIMES[target].toolkit
    assert toolkit is not None
    return toolkit


def get_backend(target: str) -> Backend:
    """Load the backend of a target, and its library with it.

    Raises
    ------
    SepViTError
        If the target is unknown.
    MissingRuntime
        If its library is not installed.
    """
    if target not in RUNTIMES:
        raise unknown_name("target", target, RUNTIMES)
    try:
        module = importlib.import_module(f".{target.replace('-', '_')}", __package__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sepvit_edge"):
            raise
        raise MissingRuntime(error.name or target, target) from None
    backend: Backend = module.backend
    return backend


def main(distributions: list[str]) -> None:
    """Print the requirement of each distribution, one a line."""
    known = {runtime.distribution: runtime.requirement for runtime in RUNTIMES.values()}
    for name in distributions:
        if name not in known:
            sys.exit(str(unknown_name("distribution", name, known)))
        print(known[name])


if __name__ == "__main__":
    main(sys.argv[1:])
