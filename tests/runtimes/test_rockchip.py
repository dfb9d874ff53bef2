"""The Rockchip backend: with a stand-in for rknn-toolkit2 everywhere, with itself where it is.

The stand-in takes the toolkit's calls, runs the ONNX file with ONNX Runtime and writes a table of
layers as the toolkit does; it knows nothing of an NPU.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import MINI, Runner, jittered, random_pixels

pytest.importorskip("onnxruntime")

import sepvit_edge
from sepvit_edge.backends.registry import RUNTIMES
from sepvit_edge.backends.rockchip import Options, read_layers
from sepvit_edge.backends.support.toolkit import VARIABLE, Toolkit
from sepvit_edge.checkpoints.builtin import builtin_checkpoints
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.errors import SepViTError
from sepvit_edge.package.folder import Package
from sepvit_edge.package.session import open_package

TOOLKIT = RUNTIMES["rockchip"].toolkit
assert TOOLKIT is not None

STAND_IN = """
import json, os, shutil
import numpy as np

class RKNN:
    def __init__(self, verbose=False):
        pass
    def config(self, target_platform, **options):
        self.platform = target_platform
        return 0
    def load_onnx(self, model):
        print("W load_onnx: words of the toolchain on standard output")
        self.model = model
        return 0
    def build(self, do_quantization, dataset=None):
        if os.environ.get("STAND_IN") == "refuses":
            return -1
        if os.environ.get("STAND_IN") == "crashes":
            os.abort()
        import onnx
        nodes = [n for n in onnx.load(self.model).graph.node if n.op_type != "Constant"]
        head, figures = "D RKNN: [07:52:25.552]", "(1,64) (1,64) 0 0 0 0 \\\\ 0 0 0.12"
        lines = [f"{head} 0 InputOperator FLOAT16 CPU {figures} InputOperator:pixels"]
        for i, node in enumerate(nodes, 1):
            kind = node.op_type
            lines.append(f"{head} {i} {kind} FLOAT16 NPU {figures} {kind}:{node.name}")
        print("\\n".join(lines))
        return 0
    def export_rknn(self, path):
        shutil.copyfile(self.model, path)
        return 0
    def release(self):
        pass
    def init_runtime(self):
        import onnxruntime
        self.session = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])
        return 0
    def inference(self, inputs, data_format):
        assert data_format == ["nchw"]
        return self.session.run(None, {self.session.get_inputs()[0].name: inputs[0]})
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toolkit environment whose Python is this one, with a stand-in for the toolkit."""
    folder = tmp_path / "environment"
    api = folder / "lib" / "rknn" / "api"
    api.mkdir(parents=True)
    (api / "__init__.py").write_text(STAND_IN)
    (folder / "pyvenv.cfg").touch()
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder / "lib"}" exec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    (folder / "complete").write_text("\n".join(TOOLKIT.requirements))
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def exported(output: Path, recipe: str = "rockchip-fp16") -> Package:
    return sepvit_edge.export_package(
        jittered(MINI), output=output, recipe=load_recipe(recipe), images=2
    )


def test_export_and_simulate_through_the_environment(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = exported(tmp_path / "lite")
    manifest = package.manifest
    assert manifest.verification == "simulated"
    assert manifest.runtime.version == manifest.versions["rknn-toolkit2"] == TOOLKIT.version
    names = {file.path for file in manifest.files}
    assert {"model.onnx", "model-rk3588.rknn", "model-rk3566.rknn"} <= names
    assert not [name for name in names if name.endswith(".log")]
    # The stand-in computes in float32: what is left is ONNX Runtime's own rounding.
    assert manifest.parity is not None and manifest.parity.images == 2
    assert manifest.parity.sqnr_db > 110
    shares = sum(group.macs_share for group in manifest.placement.placed)
    assert shares == pytest.approx(1, abs=1e-3) and manifest.placement.macs_unattributed == 0

    # The second time, everything is kept: the toolkit is not asked again.
    monkeypatch.setenv("STAND_IN", "refuses")
    again = exported(tmp_path / "again")
    assert again.manifest == manifest
    # What is not kept starts it.
    with pytest.raises(SepViTError, match="rknn-toolkit2: the build for rk3588 failed"):
        open_package(tmp_path / "lite").run_pixels(random_pixels(1, 64, seed=5))


@pytest.mark.parametrize(
    ("way", "message"),
    [("refuses", "the build for rk3588 failed"), ("crashes", "ended with signal 6")],
)
def test_a_tool_chain_that_fails_is_one_sentence_and_leaves_nothing(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, message: str
) -> None:
    monkeypatch.setenv("STAND_IN", way)
    with pytest.raises(SepViTError, match=message) as caught:
        exported(tmp_path / "out" / "lite")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_the_table_of_layers_is_read() -> None:
    head, figures = "D RKNN: [07:52:25.552]", r"0   0   0  0  \  0  0  147.00  "
    log = f"""
{head} ID   OpType           DataType Target InputShape
{head} 0    InputOperator    INT8     CPU    \\    (1,3,224,224)   {figures} InputOperator:pixels
{head} 8    Transpose        INT8     CPU    (1,8,4,2)  (1,8,2,4)  {figures} Transpose:a__permute
{head} 9    MatMul           INT8     NPU    (1,9),(1,32)  (1,8)  {figures} MatMul:a__bmm
{head} 10   exSDPAttention   FLOAT16  NPU  (8,32),... (8,32) {figures} exSDPAttention:b__bmm_1#1_2sd
{head} 11   ConvAdd          FLOAT16  NPU    (1,8),(8,8)  (1,8)  {figures} Conv:b_proj_tile0_ConvAdd
"""
    layers = read_layers(log)
    assert [(layer.kind, layer.place, layer.name) for layer in layers] == [
        ("Transpose", "CPU", "a__permute"),
        ("MatMul", "NPU", "a__bmm"),
        ("exSDPAttention", "NPU", "b__bmm_1"),
        ("ConvAdd", "NPU", "b_proj"),
    ]
    assert layers[2].sources == ("b__bmm", "b__bmm_1")


def test_platforms_are_checked() -> None:
    assert Options(platforms="rk3588, rk3566").chips == ["rk3588", "rk3566"]
    with pytest.raises(SepViTError, match=r"names 'rk3399', which is not one of .*rk3588"):
        Options(platforms="rk3588,rk3399").chips  # noqa: B018


# --- the environment --------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolkit:
    """A toolchain of one module, from a folder in place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    facts = "Metadata-Version: 2.1\nName: tiny-tool\nVersion: 1.0\n"
    with zipfile.ZipFile(folder / "tiny_tool-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_tool.py", "answer = 42\n")
        wheel.writestr("tiny_tool-1.0.dist-info/METADATA", facts)
        wheel.writestr("tiny_tool-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_tool-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "made"))
    return Toolkit("tiny-tool", "1.0", size_gb=0.1)


def test_the_environment_is_made_once(index: Toolkit) -> None:
    told: list[str] = []
    with pytest.raises(SepViTError, match=r"is not installed in .*made"):
        index.check()
    index.make(told.append)
    assert told == ["installing tiny-tool 1.0, 0.1 GB, once"] and index.check() == "1.0"
    command = [str(index.python), "-c", "import tiny_tool; print(tiny_tool.answer)"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "42\n"
    index.make(told.append)
    assert len(told) == 1
    # Another version is another environment.
    with pytest.raises(SepViTError, match="could not be installed: No matching distribution"):
        Toolkit("tiny-tool", "2.0").make(told.append)
    assert not index.folder.exists(), "a failed one is removed"


def test_no_environment_where_it_cannot_be(
    index: Toolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SepViTError, match=r"needs 1e\+06 GB in .*made"):
        Toolkit("tiny-tool", "1.0", size_gb=1e6).make(lambda _: None)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "index"))
    with pytest.raises(SepViTError, match="is not a virtual environment"):
        index.make(lambda _: None)
    assert os.listdir(tmp_path / "index"), "somebody's folder"


# --- the toolkit itself -----------------------------------------------------------------------

needs_toolkit = pytest.mark.skipif(
    not TOOLKIT.ready,
    reason=f"rknn-toolkit2 is not installed in {TOOLKIT.folder} (5.6 GB); install it by: "
    "python -m sepvit_edge.export --target rockchip",
)


def assert_nothing_is_transposed_by_the_cpu(package: Package) -> None:
    outside = package.manifest.placement.outside
    assert [(op.kind, op.part) for op in outside] == [("Reshape", None)]  # of the logits
    assert package.manifest.placement.macs_unattributed < 0.0005
    # Commands of transpositions filled 70 of 76 MB; without them weights are half of a file.
    sizes = {file.path: file.size for file in package.manifest.files}
    assert sizes["model-rk3588.rknn"] < 2.5 * sizes["model.onnx"]


def simulated(output: Path, recipe: str) -> Package:
    model = sepvit_edge.load_checkpoint(builtin_checkpoints()["lite-digits"], image_size=64)
    return sepvit_edge.export_package(model, output=output, recipe=load_recipe(recipe), images=8)


@needs_toolkit
def test_the_simulator_holds_fp16(tmp_path: Path) -> None:
    package = simulated(tmp_path / "lite", "rockchip-fp16")
    manifest = package.manifest
    assert manifest.parity is not None
    # Some hundred operations of 11 bits; measured 69 dB.
    assert manifest.parity.sqnr_db >= 55
    assert manifest.parity.top1_agreement == 1
    assert_nothing_is_transposed_by_the_cpu(package)


@needs_toolkit
def test_the_simulator_holds_int8(tmp_path: Path) -> None:
    package = simulated(tmp_path / "q", "rockchip-int8")
    parity = package.manifest.parity
    # Flips of last bits against torch's int8, as on every runtime; measured 39 dB.
    assert parity is not None and (parity.sqnr_quantized_db or 0) >= 35
    assert parity.top1_agreement == 1
    shares = {
        group.precision: group.macs_share
        for group in package.manifest.placement.placed
        if group.accelerated
    }
    assert shares["int8"] > 0.9
    assert_nothing_is_transposed_by_the_cpu(package)


def test_doctor_names_the_environment(
    run_command: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    done = run_command("doctor")
    assert "rknn-toolkit2 2.5.0 is not installed in" in done.out + done.err
