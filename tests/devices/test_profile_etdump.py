"""ETDumps: what an event tracer writes, attributed to stage, block and part.

The wheel records none. So the dumps here are written by ExecuTorch's own serialiser, with the
operators that it really put into a package's delegate, in the order and under the names that
XNNPACK's profiler gives them; the debug handles, which a real dump does not have, are the truth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from etdumps import write_dump
from helpers import MINI, MINIMAL, Runner, jittered

pytest.importorskip("executorch")
pytest.importorskip("pandas", reason="ExecuTorch's Inspector needs pandas")
import executorch.extension.pybindings as pybindings

import sepvit_edge
from sepvit_edge.backends import executorch as backend
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.graph import part_of
from sepvit_edge.package.folder import Package
from sepvit_edge.profiling.attribution import parts_of
from sepvit_edge.profiling.etdump import operations_of, read_etdump

# XNNPACK's name for each kind of node of its graph, with layout, types and kernel as it adds them.
NAMES = {
    "XNNFullyConnected": "Fully Connected (NC, F32) GEMM",
    "XNNConv2d": "Convolution (NHWC, F32) IGEMM",
    "XNNDepthwiseConv2d": "Convolution (NHWC, F32) DWConv",
    "XNNBatchMatrixMultiply": "Batch Matrix Multiply (NC, F32) GEMM",
    "XNNSoftmax": "Softmax (NC, F32)",
    "XNNStaticTranspose": "Transpose (ND, X32) Transpose",
    "XNNAdd": "Add (ND)",
    "XNNSubtract": "Subtract (ND)",
    "XNNMultiply": "Multiply (ND)",
    "XNNGelu": "Unary Elementwise (NC)",
    "XNNReciprocalSquareRoot": "Reciprocal Square Root (NC)",
    "XNNGlobalAvgPooling2d": "Mean (ND)",
    "XNNStaticReshape": "Copy (NC, X32)",
    "XNNConcatenate2": "Copy (NC, X32)",
    "XNNStaticSlice": "Slice (ND, X32)",
    "XNNConvert": "Convert (NC)",
}


@dataclass(frozen=True)
class Lowered:
    """A package, the operators of its delegate as XNNPACK names them, and where each belongs."""

    package: Path
    names: list[str]
    parts: list[str | None]

    def dump(self, path: Path) -> Path:
        return write_dump(path, [(name, 1000 + i) for i, name in enumerate(self.names)])


# An int8 program has every kind of operator of a float one too; test_profile_adb.py attributes a
# float one's products.
@pytest.fixture(scope="module", params=["int8", pytest.param("fp32", marks=pytest.mark.slow)])
def lowered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lowered]:
    from executorch.backends.xnnpack import xnnpack_preprocess

    graphs, programs = [], []
    serialize, delegation = xnnpack_preprocess.serialize_xnnpack_binary, backend.delegation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            xnnpack_preprocess,
            "serialize_xnnpack_binary",
            lambda graph, *rest: graphs.append(graph) or serialize(graph, *rest),
        )
        patch.setattr(
            backend,
            "delegation",
            lambda program, job, *rest: (
                programs.append((program, job)) or delegation(program, job, *rest)
            ),
        )
        output = tmp_path_factory.mktemp("etdump") / "mini"
        sepvit_edge.export_package(
            jittered(MINI), "executorch", request.param, output=output, images=2
        )
    ((program, job),), (graph,) = programs, graphs
    names = {node.name for node in job.program.graph.nodes if node.op == "call_function"}
    (delegate,) = [
        getattr(program.graph_module, node.target)
        for node in program.graph.nodes
        if node.op == "get_attr"
    ]
    truth = {
        node.meta["debug_handle"]: part_of(backend._origin(node, names))
        for node in delegate.original_module.graph.nodes
        if "debug_handle" in node.meta
    }
    kinds = [type(node.xnode_union).__name__ for node in graph.xnodes]
    yield Lowered(
        output,
        [NAMES[kind.removeprefix("_")] for kind in kinds],
        [truth.get(node.debug_handle) for node in graph.xnodes],
    )


def test_xnnpack_has_these_names() -> None:
    """What the stand-in says is what the library of the wheel says."""
    (library,) = Path(pybindings.__path__[0]).glob("_portable_lib*")
    content = library.read_bytes()
    for name in NAMES.values():
        base = name[: name.index(")") + 1]
        assert base.encode() + b"\0" in content, name


def test_every_operator_finds_its_part(lowered: Lowered, tmp_path: Path) -> None:
    dump = read_etdump(lowered.dump(tmp_path / "run.etdump"))
    assert [event.name.split(" #")[0] for event in dump.events] == lowered.names
    assert [event.mean_us for event in dump.events] == [
        pytest.approx((1000 + i) / 1e3) for i in range(len(lowered.names))
    ]
    operations = operations_of(dump, Package(lowered.package).manifest)
    found = parts_of(operations.items)
    wrong = [
        (item.kernel, part, truth)
        for item, part, truth in zip(operations.items, found, lowered.parts, strict=True)
        if None not in (part, truth) and part != truth
    ]
    assert wrong == []
    # 5 % of the time may stay without a place; each operator takes nearly the same here.
    assert sum(part is None for part in found) < 0.05 * len(found)


def test_profile_takes_an_etdump(lowered: Lowered, run_command: Runner, tmp_path: Path) -> None:
    manifest = Package(lowered.package).manifest
    document = json.loads(json.dumps(MINIMAL))
    document["package"] |= {"digest": manifest.digest, "target": "executorch"}
    (tmp_path / "app.json").write_text(json.dumps(document))
    dump = lowered.dump(tmp_path / "run.etdump")
    command = ("profile", lowered.package, "--app-file", tmp_path / "app.json", "--etdump", dump)
    done = run_command(*command, "--json")
    assert done.status == 0, done.err
    attribution = json.loads(done.out)[0]["attribution"]
    total = sum(1000 + i for i in range(len(lowered.names))) / 1e3
    assert attribution["whole_us"] == pytest.approx(total + 2)  # the mean of 1, 2 and 3 us more
    assert "ETDump" in attribution["method"]
    assert sum(part["macs"] for part in attribution["parts"]) == manifest.model.macs


def test_what_is_no_dump_of_the_package_is_refused(
    lowered: Lowered, tmp_path: Path, run_command: Runner, package_path: Path
) -> None:
    manifest = Package(lowered.package).manifest
    fewer = [(name, 1) for name in lowered.names if name != "Softmax (NC, F32)"]
    with pytest.raises(SepViTError, match=r"not of this package: it has 0 .* softmax"):
        operations_of(read_etdump(write_dump(tmp_path / "fewer", fewer)), manifest)
    with pytest.raises(SepViTError, match="no operators of XNNPACK"):
        read_etdump(write_dump(tmp_path / "none", []))
    (tmp_path / "text").write_text("no dump")
    with pytest.raises(SepViTError, match="is not an ETDump"):
        read_etdump(tmp_path / "text")
    with pytest.raises(SepViTError, match="there is no ETDump"):
        read_etdump(tmp_path / "missing")
    done = run_command("profile", package_path, package_path, "--etdump", tmp_path / "none")
    assert done.status == 2 and "--etdump belongs to one package" in done.err
