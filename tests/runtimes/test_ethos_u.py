"""Every operation in integers, and the Ethos-U packages made of that."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import lzma
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MINI, TESTS, jittered, mini_digits_int8, random_pixels
from torch.export import ExportedProgram
from torch.fx import Node

import sepvit_edge
from sepvit_edge.backends.interface import LoweringJob
from sepvit_edge.config.recipe import Recipe, find_recipe, load_recipe
from sepvit_edge.data.digits import Digits
from sepvit_edge.data.preprocess import preprocess
from sepvit_edge.errors import SepViTError
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import FORMS, EdgeModel, find_form
from sepvit_edge.model.logits import reference_logits
from sepvit_edge.model.reference import SepViT
from sepvit_edge.package.folder import Package
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.lowering import lowering_job, quantization_for
from sepvit_edge.quantization.exact import run_exactly
from sepvit_edge.quantization.full_int8 import FullQuantization, calibrate_full
from sepvit_edge.quantization.interface import ProgramQuantization
from sepvit_edge.quantization.qparams import QParams, ValueHistogram

TOOLS = ("executorch", "ethosu", "tosa_reference_model")
MISSING = [name for name in TOOLS if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

STORED = TESTS / "data" / "ethos-u-two-stages.tosa.xz"
RECIPE = find_recipe("ethos-u", "int8")
FORM = find_form(RECIPE.edge.form)
# With multipliers of more than their 31 bits, 2 of the first 20 have another integer.
IMAGES = 20


def few_images(recipe: Recipe, **options: object) -> Recipe:
    """The recipe, calibrated on a few images."""
    quantization = recipe.quantization.model_copy(update={"calibration_images": 16})
    return recipe.model_copy(
        update={"quantization": quantization, "options": recipe.options | options}
    )


@pytest.fixture(scope="module")
def quantization() -> FullQuantization:
    """Of a model at 32 pixels."""
    model = jittered(MINI, image_size=32)
    return calibrate_full(model, Digits("calibration"), FORM, images=8)


@pytest.fixture(scope="module")
def program(quantization: FullQuantization) -> ExportedProgram:
    return quantization.program(EdgeModel(jittered(MINI, image_size=32), 1, FORM))


@pytest.fixture(scope="module")
def trained() -> tuple[SepViT, ProgramQuantization]:
    """A quantisation-aware checkpoint, and full int8 of it."""
    model = mini_digits_int8()
    return model, quantization_for(model, few_images(RECIPE))


def operations(program: ExportedProgram) -> list[Node]:
    return [n for n in program.graph.nodes if n.op == "call_function"]


def is_conversion(node: Node) -> bool:
    return str(node.target).startswith("quantized_decomposed.")


def test_every_operation_reads_and_writes_integers(program: ExportedProgram) -> None:
    for node in operations(program):
        if is_conversion(node):
            continue
        for source in node.all_input_nodes:
            assert "dequantize" in str(source.target), (node, source)
        for user in node.users:
            assert ".quantize" in str(user.target), (node, user)


def test_moves_keep_the_grid(program: ExportedProgram) -> None:
    moves = ("view", "permute", "slice", "cat", "amax", "clone")
    found = 0
    for node in operations(program):
        if str(node.target).split(".")[1] not in moves:
            continue
        found += 1
        (behind,) = node.users
        for source in node.all_input_nodes:
            assert source.args[1:] == behind.args[1:], node
    assert found > 50


def test_weights_of_a_trained_checkpoint_keep_their_integers(
    trained: tuple[SepViT, ProgramQuantization],
) -> None:
    model, quantization = trained
    assert model.quantization is not None
    job = lowering_job(model, EdgeModel(model, 1, FORM), few_images(RECIPE), quantization)
    assert job.quantization is not None and job.quantization.scheme.startswith("full int8")
    state = job.program.state_dict
    for name, layer in model.quantization.layers.items():
        heads = [state[f"{name}.{i}.weight"] for i in range(24) if f"{name}.{i}.weight" in state]
        weight = torch.cat(heads) if heads else state[f"{name}.weight"]
        assert torch.equal(weight, layer.weight), name


def test_what_full_int8_costs(trained: tuple[SepViT, ProgramQuantization]) -> None:
    """On a trained checkpoint; figures over all images are in docs/targets/ethos-u.md."""
    model, quantization = trained
    data = Digits("test")
    size = model.config.image_size
    rule = model.config.preprocessing
    pixels = np.stack([preprocess(data[i].image, rule, size) for i in range(32)])
    reference = reference_logits(model, pixels)
    measured = quantization.reference(model)(pixels)
    assert sqnr_db(reference, measured) > 15
    assert (reference.argmax(1) == measured.argmax(1)).mean() > 0.9


def test_scale_and_zero_point() -> None:
    qparams = QParams.between(-1.0, 3.0)
    assert qparams.integers(torch.tensor([0.0])).item() == qparams.zero_point
    ends = qparams.integers(torch.tensor([-1.0, 3.0])).tolist()
    assert ends == [-128, 127]
    histogram = ValueHistogram()
    values = torch.cat((torch.linspace(-1, 1, 100_000), torch.tensor([-50.0, 50.0])))
    histogram.add(values)
    # Squared errors: steps of 100 / 255 lose 1281 by rounding; four fifths of that lose 820, and
    # 200 by clipping the two outliers; half of it 320 and 1250.
    chosen = histogram.qparams()
    assert 50 / 255 < chosen.scale < 100 / 255
    assert (histogram.low, histogram.high) == (-50, 50)


def test_what_it_refuses(quantization: FullQuantization) -> None:
    model = jittered(MINI, image_size=32)
    floats = RECIPE.model_copy(
        update={"quantization": RECIPE.quantization.model_copy(update={"keep_float": ("head",)})}
    )
    with pytest.raises(SepViTError, match="full int8 has no float layers"):
        quantization_for(model, floats)
    with pytest.raises(SepViTError, match="needs \\[edge\\]"):
        calibrate_full(model, Digits("calibration"), FORMS["rows"])
    with pytest.raises(SepViTError, match="does not fit the model"):
        quantization.program(EdgeModel(jittered("lite", image_size=32), 1, FORM))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    output = tmp_path_factory.mktemp("ethos") / "mini"
    return sepvit_edge.export_package(
        jittered(MINI, image_size=32), output=output, recipe=few_images(RECIPE), images=4
    )


@pytest.mark.slow
def test_one_delegate_that_the_reference_model_runs(package: Package) -> None:
    manifest = package.manifest
    assert manifest.verification == "reference model"
    inside, outside = manifest.placement.placed
    assert (inside.where, inside.accelerated, inside.macs_share) == ("ethos-u85-256", True, 1)
    assert manifest.placement.macs_unattributed == 0
    # The logits become float; nothing else is outside.
    assert [o.kind for o in manifest.placement.outside] == ["dequantize_per_tensor"]
    assert outside.macs_share == 0
    parity = manifest.parity
    assert parity is not None and parity.sqnr_quantized_db is not None
    # The same integers: what is left is a float32's rounding of the logits. Measured 142.5 dB.
    assert parity.sqnr_quantized_db >= 120
    estimates = {e.what: e for e in manifest.placement.estimates}
    assert set(estimates) == {"latency", "cycles", "SRAM", "DRAM", "flash"}
    assert all("ethos-u85-256" in e.source and "Sram_Only" in e.source for e in estimates.values())
    assert estimates["latency"].value > 0


@pytest.mark.slow
def test_a_package_runs_again(package: Package) -> None:
    session = open_package(package.path)
    golden = package.golden()
    logits = session.run_pixels(golden["pixels"][:1])[0]
    assert np.array_equal(logits, golden["package_logits"][:1])
    with pytest.raises(SepViTError, match="cannot be timed here"):
        session.profile(golden["pixels"][:1])


def stored_graph() -> bytes:
    return lzma.decompress(STORED.read_bytes())


def first_stages(
    count: int,
    recipe: Recipe = RECIPE,
    size: int = 64,
    quantization: ProgramQuantization | None = None,
) -> LoweringJob:
    """The first stages: tokens, one head and two, windows; small enough to be stored."""
    model, chosen = jittered(MINI, image_size=size), few_images(recipe)
    edge = EdgeModel(model, 1, find_form(chosen.edge.form))
    edge.stages, edge.head = edge.stages[:count], torch.nn.Identity()  # type: ignore[assignment]
    return lowering_job(model, edge, chosen, quantization or quantization_for(model, chosen))


def lower(job: LoweringJob, folder: Path) -> bytes:
    from sepvit_edge.backends import ethos_u

    ethos_u._lower(job, job.recipe.options_as(ethos_u.Options), folder)
    return (folder / ethos_u.TOSA).read_bytes()


def assert_same_integers(tosa: bytes, program: ExportedProgram, size: int) -> None:
    from sepvit_edge.backends import ethos_u

    (output,) = program.graph.output_node().args[0]
    _, scale, zero_point, *_ = output.args
    for pixels in random_pixels(IMAGES, size)[:, None]:
        (integers,) = ethos_u._run_reference_model(tosa, pixels)
        (expected,) = run_exactly(program, torch.from_numpy(pixels))
        np.testing.assert_array_equal(integers, (expected / scale + zero_point).round().numpy())


def test_the_stored_graph_computes_what_torch_does() -> None:
    assert_same_integers(stored_graph(), first_stages(2).program, 64)


def test_ethos_u55_computes_what_torch_does(tmp_path: Path) -> None:
    """Its stem is one of its own, and some of the backend's passes are for it alone."""
    job = first_stages(1, load_recipe("ethos-u55-256-int8"), 32)
    assert_same_integers(lower(job, tmp_path), job.program, 32)


def test_a_sum_is_rounded_before_a_sum_of_its_scale(
    tmp_path: Path, quantization: FullQuantization
) -> None:
    scale = 2**-5.6
    qparams = {name: QParams(scale, 0) for name in quantization.qparams}
    finer = QParams(2**-0.6 * scale, 0)  # or sums would be multiples of the scale by themselves
    qparams |= {name: finer for name in qparams if re.search("_(proj|fc2)__linear$", name)}
    scales = dict.fromkeys(quantization.input_scales, scale)
    one = dataclasses.replace(quantization, qparams=qparams, input_scales=scales)
    job = first_stages(1, size=32, quantization=one)
    assert_same_integers(lower(job, tmp_path), job.program, 32)


@pytest.mark.slow
def test_the_stored_graph_is_what_lowering_gives(tmp_path: Path) -> None:
    assert lower(first_stages(2), tmp_path) == stored_graph(), f"run: python {__file__}"


@pytest.mark.slow
def test_leaving_out_passes_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sepvit_edge.backends import ethos_u

    monkeypatch.setattr(ethos_u, "few_passes", contextlib.nullcontext)
    assert lower(first_stages(2), tmp_path) == stored_graph()


def test_vela_compiles_the_stored_graph() -> None:
    from sepvit_edge.backends import ethos_u

    cycles = {}
    for name in ("ethos-u-int8", "ethos-u85-1024-int8"):
        options = load_recipe(name).options_as(ethos_u.Options)
        cycles[name] = float(ethos_u.compile_tosa(stored_graph(), options)["cycles_total"])
    # Four times as many multiply-accumulates a cycle.
    assert 0 < cycles["ethos-u85-1024-int8"] < cycles["ethos-u-int8"]


def test_wrong_options_are_one_sentence() -> None:
    from sepvit_edge.backends import ethos_u

    with pytest.raises(SepViTError, match="accelerator"):
        few_images(RECIPE, accelerator="ethos-u99").options_as(ethos_u.Options)
    options = few_images(RECIPE, system_config="Nowhere").options_as(ethos_u.Options)
    with pytest.raises(SepViTError, match="Vela cannot compile the model for ethos-u85-256"):
        ethos_u.compile_tosa(stored_graph(), options)


if __name__ == "__main__":  # stores the graph anew
    with tempfile.TemporaryDirectory() as scratch:
        STORED.write_bytes(lzma.compress(lower(first_stages(2), Path(scratch)), preset=9))
