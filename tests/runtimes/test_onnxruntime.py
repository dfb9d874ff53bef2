"""The ONNX Runtime backend: what stands in model.onnx, parity, names, and refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import FEW, MINI, TESTS, dense_model, jittered, random_pixels

pytest.importorskip("onnxruntime")

import onnx

from sepvit_edge.backends.interface import LoweringJob
from sepvit_edge.backends.onnxruntime import MODEL, ONNXRuntimeSession
from sepvit_edge.backends.registry import get_backend
from sepvit_edge.backends.support.onnx_half import COMPUTED
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.errors import SepViTError
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.dense import DenseModel
from sepvit_edge.model.edge import EdgeModel
from sepvit_edge.model.edge.dense import DenseEdgeModel, region_models
from sepvit_edge.model.graph import macs_by_operation, part_of
from sepvit_edge.model.logits import reference_logits
from sepvit_edge.model.quantized import Calibration, Quantization, QuantizedLayer
from sepvit_edge.model.reference import SepViT
from sepvit_edge.package.manifest import Placement
from sepvit_edge.pipeline.lowering import lower_regions, lowering_job
from sepvit_edge.quantization.scheme import (
    LAST_LAYERS,
    LayerQuantization,
    quantizable_layers,
    quantize_weight,
    weight_scales,
)

RECIPES = ("onnxruntime-fp32", "onnxruntime-opset20-fp32", "onnxruntime-fp16")
# float32 on both sides; measured 122 dB.
FP32_DB = 100
# Weights rounded to float16 (11 bits); measured 62 dB. Bfloat16, with 3 bits less, leaves 41.
FP16_DB = 45


class Built(NamedTuple):
    model: SepViT
    job: LoweringJob
    folder: Path
    placement: Placement

    @property
    def proto(self) -> onnx.ModelProto:
        return onnx.load(self.folder / MODEL)

    def session(self) -> ONNXRuntimeSession:
        return ONNXRuntimeSession(self.folder, 2)


def build(recipe: str, folder: Path, variant: str = FEW, batch: int = 1) -> Built:
    model = jittered(variant)
    job = lowering_job(model, EdgeModel(model, batch), load_recipe(recipe))
    return Built(model, job, folder, get_backend("onnxruntime").lower(job, folder))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    first = build(RECIPES[0], tmp_path_factory.mktemp(RECIPES[0]))
    made = {RECIPES[0]: first}
    for recipe in RECIPES[1:]:  # tracing again would give the same
        job = replace(first.job, recipe=load_recipe(recipe))
        folder = tmp_path_factory.mktemp(recipe)
        placement = get_backend("onnxruntime").lower(job, folder)
        made[recipe] = Built(first.model, job, folder, placement)
    return made


@pytest.mark.parametrize("recipe", RECIPES)
def test_logits_are_the_references(built: dict[str, Built], recipe: str) -> None:
    pixels = random_pixels(4, 64)
    session = built[recipe].session()
    measured = np.concatenate([session.run(pixels[i : i + 1])[0] for i in range(4)])
    reference = reference_logits(built[recipe].model, pixels)
    half = recipe.endswith("fp16")
    assert sqnr_db(reference, measured) > (FP16_DB if half else FP32_DB)
    error = np.abs(measured - reference).max() / np.ptp(reference)
    assert error < (1e-2 if half else 1e-5)


@pytest.mark.parametrize("variant", [MINI, pytest.param("t", marks=pytest.mark.slow)])
def test_two_images_a_call(variant: str, tmp_path: Path) -> None:
    built = build("onnxruntime-fp32", tmp_path, variant, batch=2)
    pixels = random_pixels(2, 64)
    reference = reference_logits(built.model, pixels)
    assert np.abs(built.session().run(pixels)[0] - reference).max() < 1e-5 * np.ptp(reference)
    assert built.placement.macs_unattributed == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_file_says_what_it_is(built: dict[str, Built], recipe: str) -> None:
    job, proto = built[recipe].job, built[recipe].proto
    onnx.checker.check_model(proto, full_check=True)
    opset = 20 if "opset20" in recipe else 23
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", opset)]
    # What ONNX Runtime 1.17 and 1.23 read at most.
    assert proto.ir_version == {20: 9, 23: 11}[opset]
    (pixels,), (logits,) = proto.graph.input, proto.graph.output
    shape = [d.dim_value for d in pixels.type.tensor_type.shape.dim]
    assert (pixels.name, shape) == ("pixels", [1, 64, 64, 3])
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (logits.name, logits.type.tensor_type.elem_type) == ("logits", onnx.TensorProto.FLOAT)
    facts = {p.key: p.value for p in proto.metadata_props}
    assert (proto.producer_name, facts["model.variant"]) == ("sepvit-edge", FEW)
    assert json.loads(facts["input.mean"]) == list(job.input.mean)
    assert json.loads(facts["model.macs"]) == job.model.macs


@pytest.mark.parametrize("recipe", RECIPES)
def test_attention_is_one_operator_where_there_is_one(built: dict[str, Built], recipe: str) -> None:
    kinds = Counter(node.op_type for node in built[recipe].proto.graph.node)
    blocks = sum(len(stage) for stage in built[recipe].model.blocks)
    fused = "opset20" not in recipe
    assert kinds["Attention"] == (blocks if fused else 0)
    # What is left of softmax is PSA's, of the blocks with window tokens.
    tokens = sum(block.separable for stage in built[recipe].model.blocks for block in stage)
    assert kinds["Softmax"] == tokens + (0 if fused else blocks)


def test_float16_is_storage_only(built: dict[str, Built]) -> None:
    full, half = built["onnxruntime-fp32"], built["onnxruntime-fp16"]
    assert (half.folder / MODEL).stat().st_size < 0.55 * (full.folder / MODEL).stat().st_size
    # The casts are folded when the model is loaded: the same operations run, in float32.
    assert half.placement == full.placement
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in full.proto.graph.initializer}
    rounded = {
        i.name: onnx.numpy_helper.to_array(i)
        for i in half.proto.graph.initializer
        if i.data_type == onnx.TensorProto.FLOAT16
    }
    layers = [m for m in EdgeModel(full.model).modules() if isinstance(m, torch.nn.Linear)]
    assert len(rounded) >= len(layers) and "input.mean" not in rounded
    for name, weight in rounded.items():
        np.testing.assert_array_equal(weight, weights[name].astype(np.float16), name)


def test_products_are_computed_in_float16(built: dict[str, Built], tmp_path: Path) -> None:
    full = built["onnxruntime-fp32"]
    job = replace(full.job, recipe=load_recipe("onnxruntime-fp16-arm"))
    half = Built(full.model, job, tmp_path, get_backend("onnxruntime").lower(job, tmp_path))
    graph = onnx.shape_inference.infer_shapes(half.proto).graph
    values = [*graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    for node in graph.node:
        wanted = node.op_type in COMPUTED and node.output[0] != "logits"
        if wanted or node.op_type in ("Add", "Attention", "LayerNormalization", "Softmax"):
            kind = onnx.TensorProto.FLOAT16 if wanted else onnx.TensorProto.FLOAT
            assert types[node.output[0]] == kind, node.name
        # ONNX Runtime's float16 kernel of a transposed weight is 400 times the work on arm64.
        assert not [a for a in node.attribute if (a.name, a.i) == ("transB", 1)], node.name
    assert (half.folder / MODEL).stat().st_size < 0.55 * (full.folder / MODEL).stat().st_size
    pixels = random_pixels(1, 64)
    reference = reference_logits(full.model, pixels)
    assert sqnr_db(reference, half.session().run(pixels)[0]) > FP16_DB
    assert half.placement.macs_unattributed == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_of_this_machine_is_in_the_file(built: dict[str, Built], recipe: str) -> None:
    proto = built[recipe].proto
    del proto.graph.initializer[:]  # random bytes can spell anything
    texts = re.findall(rb"[ -~]{4,}", proto.SerializeToString())
    for text in texts:
        assert not re.search(rb'^/|\s/\w|[A-Z]:\\|File "|\.py\b|pkg\.|Traceback', text), text
    for thing in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info):
        assert not thing.doc_string
        assert thing is proto or not thing.metadata_props


def test_another_process_writes_the_same_bytes(built: dict[str, Built], tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path[:0] = {[str(TESTS), str(Path(__file__).parent)]!r}\n"
        "from pathlib import Path\n"
        "from test_onnxruntime import build\n"
        f"build('onnxruntime-fp16', Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""  # nor does an export chatter
    first = (built["onnxruntime-fp16"].folder / MODEL).read_bytes()
    assert (tmp_path / MODEL).read_bytes() == first


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_node_tells_its_part(built: dict[str, Built], recipe: str) -> None:
    names = [node.name for node in built[recipe].proto.graph.node]
    assert len(set(names)) == len(names)
    assert all(part_of(name) or "_weight__cast" in name for name in names)
    if recipe == "onnxruntime-opset20-fp32":  # nothing fused: every product has its own name
        assert set(macs_by_operation(built[recipe].job.program)) <= set(names)


@pytest.mark.parametrize("recipe", RECIPES)
def test_everything_runs_on_the_cpu(built: dict[str, Built], recipe: str) -> None:
    placement = built[recipe].placement
    assert {group.where for group in placement.placed} == {"CPUExecutionProvider"}
    shares = {group.precision: group.macs_share for group in placement.placed}
    assert shares == {"float": 1, "uint8": 0}  # bytes are only transposed
    assert placement.macs_unattributed == 0
    assert not placement.outside


def in_powers_of_two(model: DenseModel) -> Quantization:
    """Int8 of the heads behind the first stage, rounded so that float32 is exact as well.

    A runtime then has to give the same integers, and the same outputs.
    """
    layers = {}
    with torch.no_grad():
        for name, parameter in model.roi_head.named_parameters():
            if name.endswith("bias"):
                parameter.copy_((parameter * 128).round() / 128)
    for graph in region_models(model):
        for name, layer in quantizable_layers(graph).items():
            scale = torch.exp2(weight_scales(layer.weight).log2().ceil())
            between = None if name in LAST_LAYERS else 1 / 32
            weight = quantize_weight(layer.weight, scale)
            layers[name] = QuantizedLayer(weight, scale, between, between)
    return Quantization(layers, {}, Calibration("none", 0, "", "none"))


def test_a_layer_with_its_relu_is_int8(tmp_path: Path) -> None:
    model = dense_model("mask-rcnn", (32, 32))
    job = lowering_job(model, DenseEdgeModel(model), load_recipe("onnxruntime-int8"))
    quantization = LayerQuantization(in_powers_of_two(model))
    graphs = lower_regions(model, job, quantization, tmp_path)
    for graph, kind, layers in zip(graphs, ("QGemm", "QLinearConv"), (2, 5), strict=True):
        kinds = {place.precision: place.kinds for place in graph.placement.placed}
        # Without it: Gemm, and FusedConv, in float.
        assert kinds["uint8"].get(kind) == kinds["uint8"].get("Clip") == layers
        steps = np.random.default_rng(0).integers(-80, 80, graph.input.shape)
        regions = steps.astype(np.float32) / 32
        found = ONNXRuntimeSession(tmp_path / graph.name, 1).run(regions)
        wanted = quantization.heads(model)(graph.name, regions)
        for mine, torchs in zip(found, wanted, strict=True):
            assert len(np.unique(torchs)) > 100
            np.testing.assert_array_equal(mine, torchs)


def test_op_timings_are_attributable(built: dict[str, Built]) -> None:
    session = built["onnxruntime-fp32"].session()
    timings = session.profile(random_pixels(1, 64), 5)
    kinds = Counter(timing.kind for timing in timings)
    edge = EdgeModel(built["onnxruntime-fp32"].model)
    layers = Counter(type(module) for module in edge.modules())
    blocks = sum(len(stage) for stage in built["onnxruntime-fp32"].model.blocks)
    assert kinds["Gemm"] == layers[torch.nn.Linear] and kinds["Conv"] == layers[torch.nn.Conv2d]
    assert kinds["Attention"] == blocks
    assert len({timing.name for timing in timings}) == len(timings)
    assert all(part_of(timing.name) for timing in timings)
    assert all(timing.microseconds >= 0 for timing in timings)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "missing"])
def test_a_damaged_file_is_one_sentence(
    built: dict[str, Built], tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = (built["onnxruntime-fp32"].folder / MODEL).read_bytes()
    if damage != "missing":
        contents = {"cut": data[: len(data) // 2], "text": b"no model", "empty": b""}
        (tmp_path / MODEL).write_bytes(contents[damage])
    with pytest.raises(SepViTError, match=r"cannot load .*model\.onnx, export again") as refusal:
        ONNXRuntimeSession(tmp_path, None)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_option_is_refused(built: dict[str, Built], tmp_path: Path) -> None:
    job = built["onnxruntime-fp32"].job
    wrong = replace(job, recipe=job.recipe.model_copy(update={"options": {"opset": 17}}))
    with pytest.raises(SepViTError, match="the recipe's options: opset: Input should be 20 or 23"):
        get_backend("onnxruntime").lower(wrong, tmp_path)
