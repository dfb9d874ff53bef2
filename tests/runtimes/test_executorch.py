"""The ExecuTorch backend: one delegate, parity whole and by block, threads, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FEW, HANGS, MINI, TESTS, Exporter, jittered, random_pixels

pytest.importorskip("executorch")

import sepvit_edge
from sepvit_edge.backends import executorch as backend_module
from sepvit_edge.backends.interface import LoweringJob
from sepvit_edge.config.recipe import EdgeOptions, find_recipe
from sepvit_edge.errors import CheckFailed, SepViTError
from sepvit_edge.model.edge import EdgeModel, find_form
from sepvit_edge.model.edge.weights import LayerWeights
from sepvit_edge.model.graph import trace
from sepvit_edge.model.quantized import QuantizedLayer
from sepvit_edge.package.folder import Package
from sepvit_edge.package.manifest import Manifest
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.lowering import lowering_job
from sepvit_edge.quantization.scheme import Int8Layer

# float32 on both sides; measured 124 dB.
FP32_DB = 100
# Weights of the linears rounded to float16 (11 bits); measured 68 to 74 dB.
FP16_DB = 60


@pytest.fixture(scope="session")
def few(exported: Exporter) -> Path:
    return exported(jittered(FEW), "executorch").path


def check_whole(package: Package, least: float) -> None:
    """One delegate with everything in it, and the reference's answers."""
    manifest = package.manifest
    inside = [group for group in manifest.placement.placed if group.accelerated]
    assert [group.where for group in inside] == ["XNNPACK delegate"]
    assert inside[0].macs_share == 1
    assert manifest.placement.macs_unattributed == 0
    assert len(manifest.placement.outside) <= 1
    parity = manifest.parity
    assert parity is not None
    assert parity.top1_agreement == 1
    assert parity.max_abs_error < 1e-3 * parity.logits_range
    assert parity.sqnr_db > least


def test_every_kind_of_block_is_in_one_delegate(few: Path) -> None:
    check_whole(Package(few), FP32_DB)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lite", "t"])
def test_a_variant_is_one_delegate(variant: str, tmp_path: Path) -> None:
    package = sepvit_edge.export_package(
        jittered(variant), "executorch", output=tmp_path / variant, images=4
    )
    check_whole(package, FP32_DB)


def test_fp16_stores_linears_in_half(tmp_path: Path) -> None:
    model = jittered(MINI)
    half = sepvit_edge.export_package(model, "executorch", "fp16", tmp_path / "half", images=8)
    check_whole(half, FP16_DB)
    linears = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2)
    everything = sum(p.numel() for p in model.parameters())
    assert half.size < 4 * everything - 2 * linears + 300_000


def first_stages(count: int) -> LoweringJob:
    """Lower the first stages: quick. One has all kinds of operations, two also have two heads."""
    model, recipe = jittered(MINI), find_recipe("executorch")
    edge = EdgeModel(model, 1, find_form(recipe.edge.form))
    edge.stages, edge.head = edge.stages[:count], torch.nn.Identity()  # type: ignore[assignment]
    return lowering_job(model, edge, recipe)


@pytest.fixture(scope="module")
def job() -> LoweringJob:
    return first_stages(1)


def write_by_the_documented_route(path: Path, stages: int) -> None:
    """Run by the test below in another process."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = first_stages(stages).program
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


@pytest.mark.parametrize("stages", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_another_process_and_the_documented_route_give_the_same_bytes(
    stages: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "few_transposes", contextlib.nullcontext)
    program = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); import pathlib, "
        f"test_executorch as t; t.{write_by_the_documented_route.__name__}("
        f"pathlib.Path(sys.argv[1]), {stages})"
    )
    file = tmp_path / "documented.pte"
    command = [sys.executable, "-c", program, str(file)]
    done = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    backend_module.backend.lower(first_stages(stages), tmp_path)
    assert capfd.readouterr() == ("", "")  # the toolchain's noise is kept away
    assert done.wait(HANGS) == 0
    assert file.read_bytes() == (tmp_path / backend_module.MODEL).read_bytes()


def test_transposes_that_move_nothing_are_left_out(
    job: LoweringJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executorch.backends.xnnpack import xnnpack_preprocess
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNStaticTranspose

    pixels = random_pixels(1, 64).transpose(0, 3, 1, 2).astype(np.float32)
    manifest = Manifest.model_construct(input=job.input)
    serialize = xnnpack_preprocess.serialize_xnnpack_binary
    counts, logits = [], []

    def count(graph: Any, constants: bytearray) -> bytes:
        operations = [node.xnode_union for node in graph.xnodes]
        counts.append(sum(isinstance(o, XNNStaticTranspose) for o in operations))
        return bytes(serialize(graph, constants))

    monkeypatch.setattr(xnnpack_preprocess, "serialize_xnnpack_binary", count)
    for folder in ("fewer", "all"):
        (tmp_path / folder).mkdir()
        backend_module.backend.lower(job, tmp_path / folder)
        session = backend_module.backend.open(tmp_path / folder, manifest, None)
        logits.append(session.run(pixels)[0])
        monkeypatch.setattr(backend_module, "few_transposes", contextlib.nullcontext)
    # Two around each of the stage's two convolutions, and what undoes them.
    assert counts[1] - counts[0] >= 2 * 2 * 2
    np.testing.assert_array_equal(*logits)


class Int8WithReLU(torch.nn.Module):
    """A convolution and a linear, each with its ReLU, on scales that are powers of two."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = self.int8(LayerWeights(torch.randn(8, 4, 3, 3), torch.randn(8)).convolution)
        self.linear = self.int8(LayerWeights(torch.randn(6, 8), torch.randn(6)).linear, 2**-2)

    def int8(self, make: Any, scale: float = 2**-3) -> Int8Layer:
        layer = make(relu=True)
        integers = torch.randint(-64, 65, layer.weight.shape, dtype=torch.int8)
        scales = torch.full((len(integers),), 2**-6)
        return Int8Layer(layer, QuantizedLayer(integers, scales, scale, 2 * scale))

    def example_input(self) -> torch.Tensor:
        return torch.randint(-128, 128, (1, 4, 8, 8)) / 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).permute(0, 2, 3, 1).reshape(64, 8))


@torch.no_grad()
def test_an_int8_layer_rounds_behind_its_relu(job: LoweringJob, tmp_path: Path) -> None:
    """Apart from its rounding, XNNPACK cannot create an int8 layer: the model would not load."""
    layers = Int8WithReLU()
    own = dataclasses.replace(job, program=trace(layers))  # type: ignore[arg-type]
    placement = backend_module.backend.lower(own, tmp_path)
    assert not placement.outside
    shares = {group.precision: group.macs_share for group in placement.placed}
    assert shares == {"fp32": 0, "int8": 1}
    pixels = layers.example_input()
    session = backend_module.ExecuTorchSession(tmp_path, [1, 4, 8, 8], None)
    (found,) = session.run(pixels.numpy())
    wanted = layers.double()(pixels.double()).numpy()
    # Every sum is exact in float32, so every integer is the same.
    assert np.array_equal(found, wanted)
    assert 0 < (found == 0).mean() < 0.8 and len(np.unique(found)) > 50


class Int8Levels(Int8WithReLU):
    """A rounded map that is an output, and that another convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        weights = LayerWeights(torch.randn(4, 8, 3, 3), torch.randn(4))
        self.second = self.int8(weights.convolution, 2**-2)

    def example_input(self) -> torch.Tensor:
        return torch.randint(-128, 128, (1, 4, 6, 10)) / 8

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        x = self.conv(x)
        return x, self.second(x)


@torch.no_grad()
def test_an_output_in_int8_keeps_its_layout_for_other_readers(
    job: LoweringJob, tmp_path: Path
) -> None:
    """The convolution would read a transposed map: another shape, or wrong numbers in a square."""
    layers = Int8Levels()
    program = trace(layers)  # type: ignore[arg-type]
    own = dataclasses.replace(job, program=program, outputs=("first", "second"))
    placement = backend_module.backend.lower(own, tmp_path)
    assert not placement.outside
    pixels = layers.example_input()
    found = backend_module.ExecuTorchSession(tmp_path, [1, 4, 6, 10], None).run(pixels.numpy())
    for mine, wanted in zip(found, layers.double()(pixels.double()), strict=True):
        assert np.array_equal(mine, wanted.numpy()) and len(np.unique(mine)) > 50


def test_a_broken_budget_names_operations_blocks_and_reasons(tmp_path: Path) -> None:
    recipe = find_recipe("executorch").model_copy(update={"edge": EdgeOptions(form="rows")})
    with pytest.raises(CheckFailed) as failure:
        sepvit_edge.export_package(jittered(MINI), recipe=recipe, output=tmp_path / "p")
    assert not (tmp_path / "p").exists()
    message = str(failure.value)
    assert "19 operations are outside the target's unit, the budget is 1" in message
    assert "input__permute (input): XNNPACK does not compute on integers" in message
    assert (
        "stages_0_patch_embedding_norm__native_layer_norm (stages.0.patch_embedding): " in message
    )
    assert "(stages.0.blocks.0.dsa): XNNPACK does not support layer_norm" in message
    assert 'set form = "xnnpack"' in message


def test_outputs_do_not_change_with_later_runs(few: Path) -> None:
    session = open_package(few)
    pixels = random_pixels(2, 64)
    first = session.run_pixels(pixels[:1])[0]
    kept = first.copy()
    second = session.run_pixels(pixels[1:])[0]
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)
    assert np.array_equal(session.run_pixels(pixels)[0], np.concatenate([first, second]))


def test_the_whole_program_is_timed(few: Path) -> None:
    (timing,) = open_package(few).profile(random_pixels(1, 64), 3)
    assert timing.microseconds > 0


def test_threads(few: Path) -> None:
    from executorch.extension.pybindings import portable_lib

    pixels = random_pixels(1, 64)
    logits, counts = [], []
    for threads in (1, 3, None):
        logits.append(open_package(few, threads).run_pixels(pixels)[0])
        counts.append(portable_lib._threadpool_get_thread_count())
    assert counts == [1, 3, backend_module._default_threads()]
    assert np.allclose(logits[0], logits[1], atol=1e-5)
    session = open_package(few, 2)
    # Another pool would pull the threads from under the open session.
    with pytest.raises(SepViTError, match=r"has 2 threads .* open this one with 1 in another"):
        open_package(few, 1)
    open_package(few, 2)
    open_package(few)
    assert np.allclose(session.run_pixels(pixels)[0], logits[0], atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[: len(data) // 2], "File size is too small"),
        (lambda data: data[:4] + b"ET99" + data[8:], "'ET99' != expected 'ET12'"),
        (lambda data: data[:100] + b"\xff" * 200 + data[300:], "data may be truncated or corrupt"),
        (lambda data: b"", "offset 0"),
    ],
)
def test_a_damaged_program_is_refused_in_a_sentence(
    damage, said: str, few: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = (few / backend_module.MODEL).read_bytes()
    (tmp_path / backend_module.MODEL).write_bytes(damage(data))
    with pytest.raises(SepViTError) as refusal:
        backend_module.backend.open(tmp_path, Package(few).manifest, None)
    sentence = str(refusal.value)
    assert "cannot load" in sentence and "\n" not in sentence
    # In a worker of pytest-xdist the runtime's log does not arrive; its error code does.
    assert said in sentence or "PYTEST_XDIST_WORKER" in os.environ
    assert capfd.readouterr().err == ""


def test_a_wrong_input_is_refused(few: Path) -> None:
    session = open_package(few)
    with pytest.raises(SepViTError, match=r"takes float32 \(1, 3, 64, 64\)"):
        session.run_pixels(random_pixels(1, 96))


def test_an_unknown_option_is_refused(job: LoweringJob, tmp_path: Path) -> None:
    recipe = job.recipe.model_copy(update={"options": {"delegates": 1}})
    with pytest.raises(SepViTError, match="delegates is not a known key"):
        backend_module.backend.lower(dataclasses.replace(job, recipe=recipe), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_moved_package_still_opens(few: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(few, tmp_path / "elsewhere")
    assert open_package(moved).run_pixels(random_pixels(1, 64))[0].shape == (1, 10)
