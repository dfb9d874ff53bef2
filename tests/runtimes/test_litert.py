"""LiteRT: the runtime by a small file, the converter where its environment is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MINI, TESTS, jittered, random_pixels

pytest.importorskip("ai_edge_litert")

from ai_edge_litert.interpreter import Interpreter

import sepvit_edge
from sepvit_edge.backends.litert import module_of, read_operations
from sepvit_edge.backends.registry import RUNTIMES, host_targets
from sepvit_edge.backends.support.cache import fresh
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.edge import FORMS, EdgeModel
from sepvit_edge.package.folder import compare_packages
from sepvit_edge.package.session import open_package
from sepvit_edge.profiling.runner.runtimes.litert import LiteRT

TOOLKIT = RUNTIMES["litert"].toolkit
assert TOOLKIT is not None
# Made by litert-torch 0.10.0 from `x = project(x); relu(scores(x, tanh(x))), x`, where scores is
# q @ k.T: a product of two matrices that change, which the XNNPACK delegate does not take.
SMALL = TESTS / "runtimes" / "outside.tflite"

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
def test_the_bytes_are_the_same_again(tmp_path: Path) -> None:
    for name in ("one", "other"):
        with fresh():
            sepvit_edge.export_package(jittered(MINI), "litert", output=tmp_path / name, images=2)
    compare_packages(tmp_path / "one", tmp_path / "other")
