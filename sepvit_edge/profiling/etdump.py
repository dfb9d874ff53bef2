"""ETDumps, which ExecuTorch's event tracer writes on a device, as operations with node names.

The wheel has no event tracer, but an `executor_runner` or an app that was built with it
(``EXECUTORCH_ENABLE_EVENT_TRACER``, ``EXECUTORCH_BUILD_DEVTOOLS``) writes the time of every
operator that XNNPACK ran. XNNPACK knows neither nodes nor debug handles of the graph: it says
``Fully Connected (NC, F32) #3``, in the order in which it ran them, which is the graph's. So the
products, of which there are as many in the dump as in the traced model, are found by their number,
and what lies between two products by the longest sequence of kinds that both have there.
"""

from __future__ import annotations

import io
import re
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from statistics import fmean
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Node

from ..backends.registry import MissingRuntime
from ..errors import SepViTError
from ..package.manifest import Manifest
from .attribution import attributed, program_of
from .document import Operation, Operations, Profile

METHOD = "ExecuTorch's event tracer (ETDump), with XNNPACK's own times"
# XNNPACK's names of its operators, without layout and types, by families in which a name may
# change from release to release: the same addition was "Add" and "Binary Elementwise".
_OPERATORS = {
    "Fully Connected": "linear",
    "Convolution": "convolution",
    "Batch Matrix Multiply": "product",
    "Softmax": "softmax",
    "Add": "binary",
    "Subtract": "binary",
    "Multiply": "binary",
    "Binary Elementwise": "binary",
    "GELU": "unary",
    "Square": "unary",
    "Reciprocal Square Root": "unary",
    "Unary Elementwise": "unary",
    "Transpose": "transpose",
    "Mean": "mean",
    "Convert": "convert",
    "Slice": "slice",
    "Copy": "copy",
}
_NODES = {
    "linear": "linear",
    "convolution": "convolution",
    "bmm": "product",
    "_softmax": "softmax",
    "add": "binary",
    "sub": "binary",
    "mul": "binary",
    "gelu": "unary",
    "rsqrt": "unary",
    "permute": "transpose",
    "view": "copy",
    "cat": "copy",
    "mean": "mean",
    "slice": "slice",
    "quantize_per_tensor": "convert",
    "dequantize_per_tensor": "convert",
}
# XNNPACK merges, drops and adds none of these; a dump that has another number is of another model.
_ANCHORS = ("linear", "convolution", "product", "softmax")
_LAYERS = ("linear", "convolution")
_RUN, _FRAMEWORK = "Method::execute", ("DELEGATE_CALL", "OPERATOR_CALL")


@dataclass(frozen=True)
class Event:
    """One operator of a dump.

    Attributes
    ----------
    name : str
        The runtime's name for the operator.
    mean_us : float
        Mean time over the runs.
    """

    name: str
    mean_us: float

    @property
    def family(self) -> str | None:
        """Family: ``"linear"`` for ``Fully Connected (NC, F32) #3``; None if unknown."""
        return _OPERATORS.get(re.split(r" \(| #", self.name)[0])


@dataclass(frozen=True)
class Dump:
    """The content of a dump.

    Attributes
    ----------
    runs_us : list of float
        Time of each run of the whole model.
    events : list of Event
        Its operators in the order of execution.
    """

    runs_us: list[float]
    events: list[Event]


def read_etdump(path: Path, skip: int = 0) -> Dump:
    """Read a dump with ExecuTorch's Inspector.

    Parameters
    ----------
    path : Path
        The file.
    skip : int
        Runs at the beginning that warmed up.

    Raises
    ------
    SepViTError
        If it cannot be read, or has no run or no operators in it.
    """
    if not path.is_file():
        raise SepViTError(f"there is no ETDump {path}")
    try:
        from executorch.devtools.inspector import Inspector, TimeScale
    except ModuleNotFoundError as error:
        raise MissingRuntime(error.name or "executorch", "executorch") from None
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("ignore")
            inspector = Inspector(
                etdump_path=str(path),
                source_time_scale=TimeScale.NS,
                target_time_scale=TimeScale.US,
            )
    except (subprocess.CalledProcessError, OSError, ValueError, KeyError, TypeError, RuntimeError):
        raise SepViTError(f"{path} is not an ETDump that ExecuTorch's Inspector can read") from None
    blocks = [block for block in inspector.event_blocks if _named(block, _RUN)]
    if len(blocks) != 1:
        raise SepViTError(f"{path} has {len(blocks)} kinds of runs in it; record one model alone")
    runs = _named(blocks[0], _RUN)[0].perf_data.raw
    if len(runs) <= skip:
        raise SepViTError(f"{path} has {len(runs)} runs in it, {skip} of which warm up")
    events = [
        Event(str(event.name), fmean(event.perf_data.raw[skip:]))
        for event in blocks[0].events
        if event.perf_data is not None and event.name not in (_RUN, *_FRAMEWORK)
    ]
    if not any(event.family for event in events):
        raise SepViTError(
            f"{path} has no operators of XNNPACK in it; build the program that recorded it with "
            "-DEXECUTORCH_ENABLE_EVENT_TRACER=ON"
        )
    return Dump([float(us) for us in runs[skip:]], events)


def _named(block: Any, name: str) -> list[Any]:
    return [event for event in block.events if event.name == name]


def with_etdump(profile: Profile, manifest: Manifest, path: Path) -> Profile:
    """Attribute the times of an ETDump, which the same package gave elsewhere, to its parts.

    Raises
    ------
    SepViTError
        If it cannot be read, or is of another package.
    """
    operations = operations_of(read_etdump(path), manifest)
    return attributed(profile.model_copy(update={"operations": operations}), manifest)


def operations_of(dump: Dump, manifest: Manifest) -> Operations:
    """Name a dump's operators as a package's graph does.

    Parameters
    ----------
    dump : Dump
        A dump of a run of the package.
    manifest : Manifest
        The manifest of an ExecuTorch package.

    Raises
    ------
    SepViTError
        If the dump is not of this package.
    """
    if manifest.target != "executorch":
        raise SepViTError(f"an ETDump is of ExecuTorch; the package is for {manifest.target}")
    names = names_of(dump.events, program_of(manifest))
    return Operations(
        method=METHOD,
        runs=len(dump.runs_us),
        whole_us=fmean(dump.runs_us),
        items=[
            Operation(
                name=name or event.name,
                kind=event.family or "other",
                kernel=event.name,
                mean_us=event.mean_us,
            )
            for name, event in zip(names, dump.events, strict=True)
        ],
    )


def names_of(events: Sequence[Event], program: ExportedProgram) -> list[str | None]:
    """Return the node of the traced model behind each operator; None where it is not clear.

    Raises
    ------
    SepViTError
        If the numbers of products differ.
    """
    nodes = [(node, family) for node in program.graph.nodes if (family := family_of(node))]
    found: list[str | None] = [None] * len(events)
    for family in _ANCHORS:
        ran = [i for i, event in enumerate(events) if event.family == family]
        wanted = [node.name for node, kind in nodes if kind == family]
        if len(ran) != len(wanted):
            raise SepViTError(
                f"the ETDump is not of this package: it has {len(ran)} operators of the kind "
                f"{family}, the package {len(wanted)}"
            )
        for index, name in zip(ran, wanted, strict=True):
            found[index] = name
    positions = {node.name: i for i, (node, _) in enumerate(nodes)}
    for first, last in _gaps(found):
        # What the graph has between the same two products.
        low = positions[name] + 1 if (name := found[first - 1] if first else None) else 0
        high = positions[name] if last < len(found) and (name := found[last]) else len(nodes)
        ran_between = [event.family for event in events[first:last]]
        matcher = SequenceMatcher(None, ran_between, [kind for _, kind in nodes[low:high]], False)
        for ours, theirs, count in matcher.get_matching_blocks():
            for i in range(count):
                found[first + ours + i] = nodes[low + theirs + i][0].name
    return found


def _gaps(found: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of positions that have no name yet."""
    start = None
    for index, name in enumerate([*found, "end"]):
        if name is None and start is None:
            start = index
        elif name is not None and start is not None:
            yield start, index
            start = None


def family_of(node: Node) -> str | None:
    """Return the family of the operator that XNNPACK runs for a node; None if it runs none."""
    if node.op != "call_function":
        return None
    name = getattr(node.target, "__name__", "").split(".")[0]
    if name == "quantize_per_tensor" and _is_layer(node.all_input_nodes[0]):
        return None  # the layer itself rounds
    if name == "dequantize_per_tensor" and any(map(_is_layer, node.users)):
        return None  # the layer takes integers
    return _NODES.get(name)


def _is_layer(node: Node) -> bool:
    name = getattr(node.target, "__name__", "").split(".")[0]
    return node.op == "call_function" and _NODES.get(name) in _LAYERS
