"""Core AI: packages against the reference, by the runtime of its wheel for Linux."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import HANGS, MINI, TESTS, jittered, mini_digits, mini_digits_int8, random_pixels

pytest.importorskip("coreai_torch", reason="needs pip install 'sepvit-edge[coreai]'")

from coreai.authoring import AIModelAsset

from sepvit_edge.backends.coreai import MODEL
from sepvit_edge.backends.registry import get_backend, host_targets
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.errors import SepViTError
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import EdgeModel, find_form
from sepvit_edge.model.logits import reference_logits
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.lowering import lowering_job, quantization_for

SIZE = 64
PIXELS = random_pixels(3, SIZE)


def lowered(model, recipe, folder, batch=1, taps=False, quantization=None):
    edge = EdgeModel(model, batch, find_form(recipe.edge.form), taps)
    job = lowering_job(model, edge, recipe, quantization)
    folder.mkdir(exist_ok=True)
    placement = get_backend("coreai").lower(job, folder)
    session = get_backend("coreai").open(folder, SimpleNamespace(input=job.input), None)
    return SimpleNamespace(folder=folder, placement=placement, session=session, job=job, edge=edge)


def planar(pixels):
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)


def run(session, pixels):
    return np.concatenate([session.run(image[None])[0] for image in planar(pixels)])


@pytest.fixture(scope="module")
def model():
    return jittered(MINI)


@pytest.fixture(scope="module")
def packages(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("coreai")
    return {p: lowered(model, load_recipe(f"coreai-{p}"), root / p) for p in ("fp32", "fp16")}


@pytest.fixture(scope="module", params=["coreai-int8", "coreai-int8-float32"])
def int8(request, tmp_path_factory):
    """Calibrated weights of a real distribution, and the same layers computed by torch."""
    model, recipe = mini_digits_int8(), load_recipe(request.param)
    quantization = quantization_for(model, recipe)
    folder = tmp_path_factory.mktemp(request.param) / "int8"
    package = lowered(model, recipe, folder, quantization=quantization)
    return package, quantization.reference(model)


# Measured 124 dB, and 49 dB where every operation has 11 bits.
@pytest.mark.parametrize(("precision", "least_db"), [("fp32", 110), ("fp16", 40)])
def test_it_agrees_with_the_reference(packages, model, precision, least_db):
    reference, logits = reference_logits(model, PIXELS), run(packages[precision].session, PIXELS)
    assert sqnr_db(reference, logits) > least_db
    assert (reference.argmax(1) == logits.argmax(1)).all()


def test_int8_is_what_torch_computes(int8):
    from sepvit_edge.data.digits import Digits
    from sepvit_edge.quantization.images import calibration_pixels

    package, reference = int8
    pixels, _ = calibration_pixels(mini_digits(), Digits("test"), 8)
    # As for the other runtimes (test_quantize.py); measured 41 dB with float16 between, and 54.
    assert sqnr_db(reference(pixels), run(package.session, pixels)) > 35


def test_sizes(packages, int8):
    sizes = {
        name: (package.folder / MODEL / "main.mlirb").stat().st_size
        for name, package in {**packages, "int8": int8[0]}.items()
    }
    assert 0.49 < sizes["fp16"] / sizes["fp32"] < 0.54
    assert 0.25 < sizes["int8"] / sizes["fp32"] < 0.36


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_placement_counts_operations_and_claims_no_device(packages, model, precision):
    placement = packages[precision].placement
    assert placement.device == "not decided on this system"
    assert not any(group.accelerated for group in placement.placed)
    assert placement.macs_unattributed == 0 and placement.outside == ()
    groups = {group.precision: group for group in placement.placed}
    assert groups[precision].macs_share == 1
    kinds = groups[precision].kinds
    assert kinds["layer_norm"] == sum(isinstance(m, torch.nn.LayerNorm) for m in model.modules())
    blocks = [block for stage in model.blocks for block in stage]
    assert kinds["softmax"] == len(blocks) + sum(block.separable for block in blocks)


def test_int8_layers_count_as_int8(int8):
    package, _ = int8
    shares = {group.precision: group.macs_share for group in package.placement.placed}
    floats = package.job.quantization.float_layers
    assert len(floats) == 6 and package.placement.macs_unattributed == 0
    # The rest are products of attention, and the layers that stay in float.
    assert 0.5 < shares["int8"] < 0.95 and sum(shares.values()) == pytest.approx(1, abs=1e-3)


def test_the_file_says_what_the_manifest_says_and_no_date(packages):
    package = packages["fp16"].folder / MODEL
    facts = json.loads((package / "metadata.json").read_text("utf-8"))
    assert "creationDate" not in facts and "fp16" in facts["description"]
    own = facts["creatorDefinedMetadata"]
    assert own["variant"] == MINI and own["labels"] == [str(i) for i in range(10)]
    assert json.loads(own["preprocessing"])["crop_size"] == SIZE
    summary = AIModelAsset.load(package).summary()
    ((name, kind),), ((answer, _),) = (
        summary.function_inputs("main"),
        summary.function_outputs("main"),
    )
    assert (name, answer) == ("pixels", "logits") and "Float32" in kind


def test_an_export_in_another_process_has_the_same_bytes_and_says_nothing(packages, tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from helpers import MINI, jittered
from sepvit_edge.pipeline.export import export_package
export_package(jittered(MINI), "coreai", "fp16", {str(tmp_path / "package")!r}, images=2)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANGS
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first, again = packages["fp16"].folder / MODEL, tmp_path / "package" / MODEL
    files = sorted(file.name for file in again.iterdir())
    assert files == ["main.hash", "main.mlirb", "metadata.json"]
    for file in files:
        assert (first / file).read_bytes() == (again / file).read_bytes(), file

    session = open_package(tmp_path / "package")
    manifest, golden = session.package.manifest, session.package.golden()
    assert manifest.verification == ("run" if sys.platform == "darwin" else "simulated")
    assert manifest.versions["coreai-torch"] == "0.4.3"
    logits = session.run_pixels(golden["pixels"])[0]
    # Sums in float16 depend on how many threads they are spread over; a fault leaves 41 dB at most.
    assert sqnr_db(golden["package_logits"], logits) > 45


def test_taps_are_outputs_in_order(model, tmp_path):
    twin = lowered(model, load_recipe("coreai-fp32"), tmp_path / "twin", taps=True)
    x = planar(PIXELS[:1])
    results = twin.session.run(x)
    assert len(results) == len(twin.job.outputs)
    with torch.no_grad():
        expected = twin.edge(torch.from_numpy(x))
    for name, found, value in zip(twin.job.outputs, results, expected, strict=True):
        assert sqnr_db(value.numpy(), found) > 110, name


def test_a_batch_and_the_form_of_maps(model, tmp_path):
    recipe = load_recipe("coreai-fp32")
    recipe = recipe.model_copy(update={"edge": recipe.edge.model_copy(update={"form": "maps"})})
    package = lowered(model, recipe, tmp_path / "maps", batch=2)
    (logits,) = package.session.run(planar(PIXELS[:2]))
    assert sqnr_db(reference_logits(model, PIXELS[:2]), logits) > 110


def test_a_session_runs_inside_another_loop(packages):
    async def notebook():
        return run(packages["fp32"].session, PIXELS)

    assert asyncio.run(notebook()).shape == (3, 10)


@pytest.mark.parametrize("form", ["xnnpack", "ethos-u"])
def test_a_form_that_ends_the_converter_is_refused(model, tmp_path, form):
    recipe = load_recipe("coreai-fp32")
    recipe = recipe.model_copy(update={"edge": recipe.edge.model_copy(update={"form": form})})
    with pytest.raises(SepViTError, match=f'does not take the edge form "{form}"'):
        lowered(model, recipe, tmp_path / "refused")
    assert not (tmp_path / "refused" / MODEL).exists()


def test_a_damaged_model_is_one_sentence(packages, tmp_path):
    job = SimpleNamespace(input=packages["fp32"].job.input)
    with pytest.raises(SepViTError, match="is no Core AI model; export again"):
        get_backend("coreai").open(tmp_path, job, None)


def test_it_is_exported_by_name_only():
    assert "coreai" not in host_targets()
