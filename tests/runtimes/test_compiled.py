"""Targets that no hardware here runs: what is compiled, what is evaluated, and what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Runner, mini_digits

import sepvit_edge
from sepvit_edge.backends.registry import RUNTIMES, get_backend, host_targets
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.errors import CheckFailed, SepViTError
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import EdgeModel, find_form
from sepvit_edge.model.reference import SepViT
from sepvit_edge.package.folder import Package
from sepvit_edge.package.manifest import Placement
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.export import check_placement
from sepvit_edge.pipeline.lowering import lowering_job
from sepvit_edge.pipeline.verify import verify_package

# float16 between all operations; measured 72 dB by the evaluator.
FP16_DB = 60


def built(recipe: str, checkpoint: Path, folder: Path) -> Package:
    needed = {"executorch-coreml-fp16": ("executorch", "coremltools")}
    for library in needed.get(recipe, (recipe.split("-")[0],)):
        pytest.importorskip(library)
    model = sepvit_edge.load_checkpoint(checkpoint)
    return sepvit_edge.export_package(
        model, recipe=load_recipe(recipe), output=folder / recipe, images=4
    )


@pytest.fixture(scope="module")
def packages(
    tmp_path_factory: pytest.TempPathFactory, digits_checkpoint: Path
) -> dict[str, Package]:
    folder = tmp_path_factory.mktemp("compiled")
    names = ("openvino-npu-fp16", "executorch-vulkan-fp16", "executorch-coreml-fp16")
    return {name: built(name, digits_checkpoint, folder) for name in names}


@pytest.mark.parametrize("name", ["executorch-vulkan-fp16", "executorch-coreml-fp16"])
def test_one_delegate_takes_everything(packages: dict[str, Package], name: str) -> None:
    placement = packages[name].manifest.placement
    (group,) = placement.placed
    delegate = {"vulkan": "Vulkan", "coreml": "Core ML"}[name.split("-")[1]]
    assert (group.where, group.precision) == (f"{delegate} delegate", "fp16")
    assert group.macs_share == 1 and placement.macs_unattributed == 0
    linears = [m for m in EdgeModel(mini_digits()).modules() if isinstance(m, torch.nn.Linear)]
    assert group.kinds["linear"] == len(linears) and not placement.outside
    # Half of the bytes of float32 weights.
    assert packages[name].size < 0.6 * 4 * packages[name].manifest.model.parameters


def test_the_core_ml_delegate_is_evaluated(packages: dict[str, Package]) -> None:
    manifest = packages["executorch-coreml-fp16"].manifest
    assert manifest.verification == "evaluated" and manifest.parity is not None
    assert manifest.parity.sqnr_db > FP16_DB and manifest.parity.top1_agreement == 1
    # float16 it is: float32 has 100 dB and more.
    assert manifest.parity.sqnr_db < 90


@pytest.mark.parametrize("name", ["openvino-npu-fp16", "executorch-vulkan-fp16"])
def test_what_nothing_computed_says_so(packages: dict[str, Package], name: str) -> None:
    package = packages[name]
    if package.manifest.verification == "run":
        pytest.skip("an NPU is here")
    assert package.manifest.verification == "compiled" and package.manifest.parity is None
    golden = package.golden()
    assert "package_logits" not in golden and len(golden["reference_logits"]) == 6
    with pytest.raises(SepViTError, match="runs on its device only"):
        open_package(package.path)


def test_the_npus_model_is_static_and_of_rank_4(packages: dict[str, Package]) -> None:
    """What Intel's NPU compiler asks for; and the CPU's plugin computes the reference from it."""
    import openvino as ov

    package = packages["openvino-npu-fp16"]
    model = ov.Core().read_model(package.path / "model.xml")
    weights = {"Constant", "Convert"}  # of a depthwise convolution, of rank 5 in OpenVINO
    shapes = [
        port.get_partial_shape()
        for node in model.get_ops()
        if node.get_type_name() not in weights
        for port in node.outputs()
    ]
    assert len(shapes) > 250 and all(s.is_static and len(s) <= 4 for s in shapes)
    golden = package.golden()
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits = np.concatenate([compiled([p[None]])[0].copy() for p in golden["pixels"]])
    assert sqnr_db(golden["reference_logits"], logits) > 45  # weights in float16
    (group,) = package.manifest.placement.placed
    if package.manifest.verification == "compiled":
        assert not group.accelerated and "no compiler" in package.manifest.placement.device


@pytest.mark.slow
@pytest.mark.parametrize("name", ["executorch-coreml-fp16", "executorch-vulkan-fp16"])
def test_the_same_bytes_again(
    packages: dict[str, Package], digits_checkpoint: Path, name: str
) -> None:
    verify_package(packages[name].path, digits_checkpoint)


def lower_one_stage(
    name: str, model: SepViT, folder: Path, form: str | None = None
) -> tuple[Path, Placement]:
    """Lower the first stage alone; none of the checks of an export."""
    recipe = load_recipe(name)
    edge = EdgeModel(model, 1, find_form(form or recipe.edge.form))
    edge.stages, edge.head = edge.stages[:1], torch.nn.Identity()  # type: ignore[assignment]
    folder.mkdir()
    return folder, get_backend(recipe.target).lower(lowering_job(model, edge, recipe), folder)


def test_another_program_has_another_identifier(tmp_path: Path) -> None:
    """ExecuTorch keeps compiled Core ML programs by it: a shared one would run the wrong model."""
    pytest.importorskip("executorch")
    pytest.importorskip("coremltools")

    def identifier(folder: Path) -> bytes:
        data = (folder / "model.pte").read_bytes()
        start = data.index(b'"identifier": "') + len(b'"identifier": "')
        return data[start : data.index(b'"', start)]

    model = mini_digits()
    first = lower_one_stage("executorch-coreml-fp16", model, tmp_path / "first")[0]
    model.blocks[0][0].norm1.bias.data += 1
    other = lower_one_stage("executorch-coreml-fp16", model, tmp_path / "other")[0]
    assert identifier(first) != identifier(other)
    assert len(identifier(first)) == len(identifier(other)) > 32


def test_an_operation_outside_the_delegate_breaks_the_budget(tmp_path: Path) -> None:
    """Bytes of pixels: Vulkan computes none."""
    pytest.importorskip("executorch")
    name = "executorch-vulkan-fp16"
    _, placement = lower_one_stage(name, mini_digits(), tmp_path / "p", form="rows")
    with pytest.raises(
        CheckFailed, match=r"budget is broken.*input__.*\(input\): Vulkan does not support"
    ):
        check_placement(placement, load_recipe(name))


def test_targets_for_npus_are_named_to_be_exported(run_command: Runner) -> None:
    hosts = set(host_targets())
    assert hosts == {"coreml", "executorch", "onnxruntime", "openvino"}
    assert {"qualcomm-htp", "openvino-npu", "executorch-vulkan"} <= RUNTIMES.keys() - hosts
    assert "'all' exports every non-NPU target" in run_command("export", "--help").out


def test_the_facts_say_what_each_package_proves(
    packages: dict[str, Package], run_command: Runner
) -> None:
    done = run_command("cli.verification_table", *(package.path for package in packages.values()))
    assert done.status == 0
    rows = {f"{row['target']}-{row['precision']}": row for row in json.loads(done.out)}
    vulkan, coreml = rows["executorch-vulkan-fp16"], rows["executorch-coreml-fp16"]
    assert vulkan["verification"] == "compiled" and vulkan["parity"] is None
    assert vulkan["outside"] == 0 and vulkan["macs_inside"] == pytest.approx(1)
    parity = packages["executorch-coreml-fp16"].manifest.parity
    assert parity is not None
    assert coreml["verification"] == "evaluated" and coreml["parity"]["images"] == 4
    assert coreml["parity"]["sqnr_db"] == parity.sqnr_db
    npu = rows["openvino-npu-fp16"]
    assert npu["outside"] is None and npu["macs_inside"] is None and npu["estimates"] == []
    assert vulkan["versions"]["executorch"].startswith("1.4")


def test_every_verification_is_explained() -> None:
    from typing import get_args

    from sepvit_edge.package.verification import LEVELS, Verification

    assert set(LEVELS) == set(get_args(Verification))
