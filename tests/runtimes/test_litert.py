"""LiteRT: the runtime by a small file, the converter where its environment is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MINI, TESTS, jittered, macs_share, mini_digits, random_pixels

pytest.importorskip("ai_edge_litert")

from ai_edge_litert.interpreter import Interpreter

import sepvit_edge
from sepvit_edge.backends.litert import module_of, read_operations
from sepvit_edge.backends.registry import RUNTIMES, host_targets
from sepvit_edge.backends.support.cache import fresh
from sepvit_edge.backends.support.litert_file import compute_gelus_in_float
from sepvit_edge.backends.support.quantized_weights import unfold_weights
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.errors import SepViTError
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import FORMS, EdgeModel
from sepvit_edge.package.folder import compare_packages
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.by_block import distances
from sepvit_edge.pipeline.lowering import quantization_for
from sepvit_edge.profiling.runner.runtimes.litert import LiteRT
from sepvit_edge.quantization.scheme import (
    CLASSIFIER,
    Int8Layer,
    LayerQuantization,
    uncalibrated_layer,
)

TOOLKIT = RUNTIMES["litert"].toolkit
assert TOOLKIT is not None
# Made by litert-torch 0.10.0 from `x = project(x); relu(scores(x, tanh(x))), x`, where scores is
# q @ k.T: a product of two matrices that change, which the XNNPACK delegate does not take.
SMALL = TESTS / "runtimes" / "outside.tflite"
# The same converter's file of `int8_layers`, as it leaves its hands.
GELU = TESTS / "runtimes" / "int8_gelu.tflite"

needs_toolkit = pytest.mark.skipif(
    not TOOLKIT.ready,
    reason=f"litert-torch is not installed in {TOOLKIT.folder} ({TOOLKIT.size_gb} GB); install it "
    "by: python -m sepvit_edge.export --target litert",
)


def test_what_the_delegate_leaves_out_is_found() -> None:
    interpreter = Interpreter(str(SMALL), num_threads=1)
    interpreter.allocate_tensors()
    operations = read_operations(interpreter)
    assert [(o.kind, o.delegated) for o in operations] == [
        ("FULLY_CONNECTED", True),
        ("TANH", True),
        ("FULLY_CONNECTED", False),
    ]


def int8_layers() -> torch.nn.Module:
    """Two int8 layers with GELU between them, as an MLP has them, and float in front and behind."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)
    first, second = (Int8Layer(layer, uncalibrated_layer(layer)) for layer in layers)
    tanh = torch.nn.Tanh()
    return torch.nn.Sequential(tanh, first, torch.nn.GELU(), second, tanh)


def interpreter_of(file: Path) -> Interpreter:
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def test_gelu_between_int8_layers_goes_into_the_delegate(tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(GELU.read_bytes())
    x = torch.randn(6, 8)
    operations, results = [], []
    for _ in range(2):
        operations.append(read_operations(interpreter_of(file)))
        results += LiteRT({}, 1, None).load(file)([x.numpy()])
        compute_gelus_in_float(file)
    assert [o.kind for o in operations[0] if not o.delegated] == ["GELU"]
    assert [(o.kind, o.precision, o.delegated) for o in operations[1]] == [
        ("TANH", "f32", True),
        ("QUANTIZE", "i8", True),
        ("FULLY_CONNECTED", "i8", True),
        ("DEQUANTIZE", "f32", True),
        ("GELU", "f32", True),
        ("QUANTIZE", "i8", True),
        ("FULLY_CONNECTED", "i8", True),
        ("DEQUANTIZE", "f32", True),
        ("TANH", "f32", True),
    ]
    np.testing.assert_array_equal(*results)
    expected = int8_layers().double()(x.double()).detach().numpy()
    # Another integer at the end would be 1e-2 away.
    np.testing.assert_allclose(results[1], expected, rtol=0, atol=1e-5)


def test_weights_are_quantised_in_the_graph() -> None:
    layers, x = int8_layers(), torch.rand(6, 8)
    module = torch.export.export(layers, (x,)).module(check_guards=False)
    unfold_weights(module)
    kinds = [str(n.target).split(".")[1] for n in module.graph.nodes if n.op == "call_function"]
    assert kinds.count("quantize_per_channel") == kinds.count("dequantize_per_channel") == 2
    torch.testing.assert_close(module(x), layers(x), rtol=0, atol=0)


def test_modules_are_read_off_tensors() -> None:
    edge = "sepvit_edge.model.edge"
    stage = f"{edge}.network.EdgeModel/{edge}.network.Stage_2/{edge}.rows.Block_10"
    assert module_of(f"{stage};3") == "stages_2_blocks_10"
    fused = f"{stage}/{edge}.rows.DSA_dsa;;{stage}/{edge}.rows.DSA_dsa/torch.nn.Linear_q;1"
    assert module_of(fused) == "stages_2_blocks_10_dsa_q"
    assert module_of(f"{edge}.network.EdgeModel/{edge}.rows.Stem_patch_embedding") == (
        "patch_embedding"
    )
    assert module_of("serving_default_args_0") == ""


def test_outputs_keep_their_order() -> None:
    facts: dict[str, Any] = {}
    call = LiteRT(facts, 1, None).load(SMALL)
    scores, projected = call([np.arange(24, dtype=np.float32).reshape(6, 4) / 10])
    assert scores.shape == (6, 6) and projected.shape == (6, 8)
    torch.manual_seed(0)
    project = torch.nn.Linear(4, 8)
    x = project(torch.arange(24.0).reshape(6, 4) / 10)
    np.testing.assert_allclose(projected, x.detach().numpy(), atol=1e-6)
    expected = (x @ x.tanh().T).relu().detach().numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    from sepvit_edge.backends.litert import _interpreter

    (tmp_path / "model.tflite").write_bytes(SMALL.read_bytes()[:700])
    with pytest.raises(SepViTError, match=r"LiteRT cannot load model\.tflite"):
        _interpreter(tmp_path / "model.tflite", 1)


def test_one_head_alone_is_two_products() -> None:
    """In the first stage of Lite, and nowhere else; the same numbers."""
    model, pixels = jittered(MINI), torch.rand(1, 3, 64, 64) * 255
    halved, plain = (EdgeModel(model, 1, FORMS[name]) for name in ("litert", "rows-float"))
    torch.testing.assert_close(halved(pixels), plain(pixels), rtol=0, atol=1e-5)
    q, k = torch.randn(1, 64, 32), torch.randn(1, 32, 64)
    psa = halved.stages[0].blocks[0].psa
    torch.testing.assert_close(psa.products(q, k), q @ k)


def test_it_is_exported_by_name_only() -> None:
    assert "litert" not in host_targets()
    assert load_recipe("litert-fp32").edge.form == "litert"


@needs_toolkit
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least_db"), [("fp32", 100), ("fp16", 50)])
def test_the_package_is_the_reference(tmp_path: Path, precision: str, least_db: float) -> None:
    package = sepvit_edge.export_package(
        jittered(MINI), "litert", precision, tmp_path / "lite", images=4
    )
    manifest = package.manifest
    # Measured 123 dB, and 63 dB where weights have 11 bits.
    assert manifest.parity is not None and manifest.parity.sqnr_db >= least_db
    (placed,) = manifest.placement.placed
    assert placed.where == "XNNPACK" and placed.macs_share == 1
    assert manifest.placement.outside == () and manifest.versions["litert-torch"] == "0.10.0"
    assert open_package(package.path).run_pixels(random_pixels(2, 64))[0].shape == (2, 10)


@needs_toolkit
@pytest.mark.slow
def test_int8_is_torchs_in_int8_kernels(tmp_path: Path) -> None:
    model = mini_digits()
    package = sepvit_edge.export_package(model, "litert", "int8", tmp_path / "lite", images=32)
    manifest = package.manifest
    # Measured 57 dB; 35 is the limit of the other runtimes (docs/development/testing.md).
    assert manifest.parity is not None and manifest.parity.sqnr_quantized_db is not None
    assert manifest.parity.sqnr_quantized_db >= 35
    quantization = quantization_for(model, load_recipe("litert-int8"))
    assert isinstance(quantization, LayerQuantization)
    pixels = random_pixels(16, 64)
    logits = open_package(package.path, 1).run_pixels(pixels)[0]
    pairs = zip(quantization.reference(model)(pixels), logits, strict=True)
    # Most images have every integer of torch's: 29 of 32 digits, from 126 dB on; others, 44 to 66.
    assert sum(sqnr_db(*pair) > 100 for pair in pairs) >= 8
    # Measured 33 to 134 dB.
    assert min(tap.sqnr_db for tap in distances(package, model, pixels[:1])) > 20
    layers = dict(quantization.stored.layers)
    del layers[CLASSIFIER]  # its weights are stored as floats
    placed = {group.precision: group for group in manifest.placement.placed}
    assert placed.keys() == {"f32", "i8"} and manifest.placement.outside == ()
    assert {group.where for group in placed.values()} == {"XNNPACK"}
    kinds = placed["i8"].kinds
    assert kinds["FULLY_CONNECTED"] + kinds["CONV_2D"] == len(layers)
    assert placed["i8"].macs_share == pytest.approx(macs_share(model, layers), abs=1e-3)
    assert manifest.placement.macs_unattributed == 0
    assert stored_weights(package.path / "model.tflite") == {
        module.replace(".", "_"): (layer.weight.flatten().tolist(), layer.weight_scale.tolist())
        for module, layer in layers.items()
    }


def stored_weights(file: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Integers and scales of each int8 layer of a file, by its module."""
    interpreter = interpreter_of(file)
    tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
    found = {}
    for operation in interpreter._get_ops_details():
        if operation["op_name"] not in ("FULLY_CONNECTED", "CONV_2D"):
            continue
        weight = tensors[int(operation["inputs"][1])]
        if weight["dtype"] == np.int8:
            integers = interpreter.get_tensor(weight["index"])
            if integers.ndim == 4:
                integers = integers.transpose(0, 3, 1, 2)
            module = module_of(tensors[int(operation["outputs"][0])]["name"])
            scales = weight["quantization_parameters"]["scales"]
            found[module] = integers.flatten().tolist(), scales.tolist()
    return found


@needs_toolkit
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_bytes_are_the_same_again(tmp_path: Path, precision: str) -> None:
    for name in ("one", "other"):
        with fresh():
            sepvit_edge.export_package(
                mini_digits(), "litert", precision, tmp_path / name, images=2
            )
    compare_packages(tmp_path / "one", tmp_path / "other")
