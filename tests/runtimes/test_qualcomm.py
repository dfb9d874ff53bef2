"""Qualcomm's HTP: what the wheel's emulation computes, where each operation is, and failures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

pytest.importorskip(
    "onnxruntime_qnn",
    reason="onnxruntime-qnn is not installed: pip install 'sepvit-edge[qualcomm]'",
)

from helpers import HANGS, MINI, Runner, jittered, macs_share, mini_digits, random_pixels

import sepvit_edge
from sepvit_edge.backends.qualcomm_htp import MODEL, SOCS, QualcommHTPSession, backend
from sepvit_edge.backends.support import qualcomm_worker
from sepvit_edge.config.recipe import EdgeOptions, Recipe, load_recipe, parse_recipe
from sepvit_edge.errors import CheckFailed, SepViTError
from sepvit_edge.files import cache_folder
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import EdgeModel
from sepvit_edge.model.logits import reference_logits
from sepvit_edge.package.folder import Package
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.taps import by_block
from sepvit_edge.pipeline.twins import run_twin
from sepvit_edge.pipeline.verify import verify_package
from sepvit_edge.quantization.scheme import CLASSIFIER, quantizable_layers

# float16 has 11 bits, and some hundred operations follow each other; measured 59 dB.
FP16_DB = 52
# A single activation that float16 rounds to the next integer moves others behind it, until two
# runs differ by about what quantisation itself costs; measured 43 dB, and 35 of the whole Lite.
INT8_DB = 36
IMAGES = 4
# Of `mini_digits`: q, k, v, q and k among windows, proj, fc1 and fc2 of three blocks; one block has
# no windows to mix; the classifier. Two products an attention.
LINEARS = 3 * 8 + 6 + 1
PRODUCTS = 3 * 4 + 2


def recipe_for(precision: str, socs: str = "SM8650", **options: object) -> Recipe:
    recipe = load_recipe(f"qualcomm-htp-{precision}")
    return recipe.model_copy(update={"options": {"socs": socs}, **options})


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is taken from the user's cache, or left in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def packages(
    tmp_path_factory: pytest.TempPathFactory, digits_checkpoint: Path
) -> dict[str, Package]:
    """Digits at 64 pixels, in both precisions; int8 for two SoCs."""
    folder = tmp_path_factory.mktemp("qualcomm")
    model = sepvit_edge.load_checkpoint(digits_checkpoint)
    return {
        precision: sepvit_edge.export_package(
            model, recipe=recipe_for(precision, socs), output=folder / precision, images=IMAGES
        )
        for precision, socs in (("fp16", "SM8650"), ("int8", "SM8650, SM8450"))
    }


@pytest.mark.parametrize(("precision", "least"), [("fp16", FP16_DB), ("int8", INT8_DB)])
def test_the_emulation_computes_the_references_logits(
    packages: dict[str, Package], precision: str, least: float
) -> None:
    manifest = packages[precision].manifest
    parity = manifest.parity
    assert manifest.verification == "emulated"
    assert parity is not None and parity.images == IMAGES
    assert parity.sqnr_db > least and parity.top1_agreement == 1
    # The same file on the CPU: what is left is the HTP's own arithmetic.
    assert parity.sqnr_cpu_db is not None and parity.sqnr_cpu_db > least
    # Not the CPU in disguise, which agrees with itself to 100 dB and more.
    assert parity.sqnr_cpu_db < 80


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_operation_is_on_the_htp(packages: dict[str, Package], precision: str) -> None:
    placement = packages[precision].manifest.placement
    assert not placement.outside and placement.macs_unattributed == 0
    shares = {group.precision: group.macs_share for group in placement.placed}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)  # rounded to four digits
    kinds = {group.precision: group.kinds for group in placement.placed}
    if precision == "fp16":
        assert shares["fp16"] == 1 and kinds["fp16"]["FullyConnected"] == LINEARS
    else:
        quantization = packages[precision].manifest.quantization
        assert quantization is not None
        model = mini_digits()
        floats = {layer.name for layer in quantization.float_layers} | {CLASSIFIER}
        layers = quantizable_layers(EdgeModel(model)).keys() - floats
        assert shares["int8"] == pytest.approx(macs_share(model, layers), abs=1e-3)
        assert kinds["int8"]["FullyConnected"] == LINEARS - 1  # all but the classifier
        assert kinds["fp16"]["MatMul"] == PRODUCTS and "MatMul" not in kinds["int8"]


def test_each_soc_has_its_program(packages: dict[str, Package]) -> None:
    package = packages["int8"]
    names = {file.path for file in package.manifest.files}
    programs = {f"{soc}{end}" for soc in ("SM8650", "SM8450") for end in (".onnx", "_qnn.bin")}
    assert names == {MODEL, "labels.txt", "golden.safetensors", *programs}
    golden = package.golden()
    for soc in ("SM8650", "SM8450"):
        (node,) = onnx.load(package.path / f"{soc}.onnx").graph.node
        assert node.op_type == "EPContext"
        pixels = np.ascontiguousarray(golden["pixels"][2:3].transpose(0, 3, 1, 2), np.float32)
        logits = QualcommHTPSession(package.path, soc, 1).run(pixels)[0]
        assert sqnr_db(golden["reference_logits"][2:3], logits) > INT8_DB - 5  # of a single image


def test_nothing_of_this_machine_or_of_the_wheel_is_in_a_package(
    packages: dict[str, Package],
) -> None:
    libraries = Path(qualcomm_worker.__file__).parents[2]
    for file in packages["int8"].manifest.files:
        assert not file.path.endswith((".so", ".dll", ".json"))
        data = (packages["int8"].path / file.path).read_bytes()
        assert str(libraries).encode() not in data
        assert str(packages["int8"].path.parent).encode() not in data


def test_by_block() -> None:
    model, pixels = jittered(MINI), random_pixels(1, 64)
    outputs = run_twin(model, recipe_for("fp16"), pixels)
    for tap in by_block(outputs, model, pixels, "fp16"):
        assert tap.sqnr_db > 45, tap  # swapped heads leave 9 dB, doubled weights 44


def test_a_second_export_compiles_and_emulates_nothing(
    packages: dict[str, Package],
    digits_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the worker was started")

    monkeypatch.setattr(qualcomm_worker.Worker, "__init__", refuse)
    model = sepvit_edge.load_checkpoint(digits_checkpoint)
    recipe = parse_recipe(packages["fp16"].manifest.recipe)
    again = sepvit_edge.export_package(model, recipe=recipe, output=tmp_path / "p", images=IMAGES)
    assert again.manifest == packages["fp16"].manifest


@pytest.mark.slow
def test_verify_compiles_anew_and_finds_the_same_bytes(
    packages: dict[str, Package], digits_checkpoint: Path
) -> None:
    kept = {file: file.stat().st_mtime_ns for file in cache_folder().glob("*/*.bin")}
    verify_package(packages["fp16"].path, digits_checkpoint)
    made = {file: file.stat().st_mtime_ns for file in cache_folder().glob("*/*.bin")}
    assert kept.keys() == made.keys() and kept != made


@pytest.mark.slow
def test_a_node_that_the_htp_refuses_is_named_with_its_block(tmp_path: Path) -> None:
    """An int8 classifier whose logits are float: QNN has none."""
    model = mini_digits()
    recipe = recipe_for("int8")
    options = recipe.quantization.model_copy(update={"classifier": "int8"})
    with pytest.raises(CheckFailed, match=r"budget is broken.*head_classifier.*\(head\): QNN says"):
        sepvit_edge.export_package(
            model,
            recipe=recipe.model_copy(update={"quantization": options}),
            output=tmp_path / "p",
        )
    assert not list(tmp_path.iterdir())


def test_bytes_of_pixels_are_refused(tmp_path: Path) -> None:
    recipe = recipe_for("fp16")
    edge = EdgeOptions(form="rows")
    with pytest.raises(SepViTError, match='set form = "rows-float"'):
        sepvit_edge.export_package(
            jittered(MINI), recipe=recipe.model_copy(update={"edge": edge}), output=tmp_path / "p"
        )


@pytest.mark.parametrize("socs", ["SM9999", "", "SM8650, 57"])
def test_an_unknown_soc_is_refused(packages: dict[str, Package], tmp_path: Path, socs: str) -> None:
    job = SimpleNamespace(recipe=recipe_for("fp16", socs), input=packages["fp16"].manifest.input)
    with pytest.raises(SepViTError, match=r"there is no SoC .* SM8650"):
        backend.lower(job, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_qnn_cannot_compile_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v68 with 4 MB of VTCM: QNN runs out of memory."""
    from sepvit_edge.backends import qualcomm_htp

    monkeypatch.setitem(SOCS, "SM8350", qualcomm_htp.SoC("Snapdragon 888", 30, 68, 4))
    monkeypatch.setattr(qualcomm_htp, "_read", lambda file: {"unsupported_nodes": []})
    with pytest.raises(CheckFailed, match="QNN cannot compile the model for SM8350") as refusal:
        sepvit_edge.export_package(
            mini_digits(),
            recipe=recipe_for("int8", "SM8350"),
            output=tmp_path / "p",
        )
    assert "\n" not in str(refusal.value) and "MEM_ALLOC" in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_crash_of_the_compiler_is_one_sentence(
    packages: dict[str, Package], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packages["fp16"]
    session = QualcommHTPSession(package.path, "SM8650", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    session._worker._process.kill()
    with pytest.raises(SepViTError, match=r"QNN cannot run .*: its process ended with signal 9"):
        session.run(np.zeros((1, 3, 64, 64), np.float32))


def test_a_damaged_program_is_one_sentence(
    packages: dict[str, Package], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = packages["fp16"].path
    (tmp_path / "SM8650.onnx").write_bytes((folder / "SM8650.onnx").read_bytes())
    (tmp_path / "SM8650_qnn.bin").write_bytes((folder / "SM8650_qnn.bin").read_bytes()[:1000])
    session = QualcommHTPSession(tmp_path, "SM8650", 1)
    with pytest.raises(SepViTError, match=r"QNN cannot load .*, export again") as refusal:
        session.run(np.ones((1, 3, 64, 64), np.float32))
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_export_leaves_nothing(tmp_path: Path, digits_checkpoint: Path) -> None:
    output, home = tmp_path / "p", tmp_path / "cache"
    command = [sys.executable, "-m", "sepvit_edge.export", "--target", "qualcomm-htp"]
    command += ["--precision", "fp16", "--weights", str(digits_checkpoint)]
    process = subprocess.Popen(
        [*command, "--output", str(output)],
        env={**os.environ, "XDG_CACHE_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background has SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + HANGS
    while not list(tmp_path.glob(".p.partial/package/tmp*")):  # it compiles
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 130 and "interrupted; nothing was written" in said
    assert not output.exists() and not list(tmp_path.glob(".p*"))
    assert not list(home.glob("**/*.bin"))  # it did not wait until the compiler was done


def test_the_runner_runs_the_program_and_marks_it(
    packages: dict[str, Package], tmp_path: Path
) -> None:
    from sepvit_edge.profiling.runner_file import write_runner

    command = [sys.executable, str(write_runner(tmp_path)), str(packages["int8"].path)]
    command += ["--runs", "1", "--seconds", "0", "--starts", "1", "--growth-runs", "0"]
    command += ["--operations", "1", "--execution", "SM8450"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["emulated"] and document["golden"]["passed"]
    assert document["runtime"]["execution"] == "HTP of SM8450"
    assert {"what": "times of the HTP", "reason": "this machine emulates it"} in document[
        "not_measured"
    ]
    operations = document["operations"]
    total = sum(item["mean_us"] for item in operations["items"])
    # All cycles belong to an operation, and the two clocks of one run agree.
    assert total == pytest.approx(operations["whole_us"], rel=0.5)
    named = [item for item in operations["items"] if re.match("stages_|head|input", item["name"])]
    assert len(named) > 0.8 * len(operations["items"])

    command[-1] = "SM8750"
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    assert (
        done.returncode == 2 and "has no program for SM8750, only for SM8650, SM8450" in done.stderr
    )


def test_profile_is_refused_where_it_means_nothing(packages: dict[str, Package]) -> None:
    session = open_package(packages["fp16"].path)
    with pytest.raises(SepViTError, match="the emulation's times say nothing about the HTP"):
        session.profile(np.zeros((1, 64, 64, 3), np.uint8))


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from sepvit_edge.backends.registry import get_backend

    real = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "sepvit_edge.backends.qualcomm_htp")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "onnxruntime_qnn" else real(name, *rest),
    )
    with pytest.raises(
        SepViTError, match=r"onnxruntime-qnn.*pip install 'sepvit-edge\[qualcomm\]'"
    ):
        get_backend("qualcomm-htp")


def test_doctor_says_how_it_is_checked(run_command: Runner) -> None:
    done = run_command("doctor", "--json")
    (health,) = (t for t in json.loads(done.out)["targets"] if t["target"] == "qualcomm-htp")
    assert health["exports"] and "emulation" in health["runs"]


def test_fp16_weights_are_no_subnormal_numbers(packages: dict[str, Package]) -> None:
    """The factor that the first convolution's weights got is taken from its input again."""
    graph = onnx.load(packages["fp16"].path / MODEL).graph
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    conv = next(node for node in graph.node if node.op_type == "Conv")
    (product,) = (node for node in graph.node if conv.input[0] in node.output)
    assert product.op_type == "Mul" and weights[product.input[1]] == 2**-8
    model = mini_digits()
    std = np.array(model.config.preprocessing.std, np.float32).reshape(1, 3, 1, 1) * 255
    folded = model.patch_embeds[0].proj.weight.detach().numpy() / std
    np.testing.assert_allclose(weights[conv.input[1]] / 2**8, folded, rtol=1e-6)
    smallest = np.finfo(np.float16).smallest_normal
    before, after = (np.abs(w) < smallest for w in (folded, weights[conv.input[1]]))
    assert before.mean() > 10 * after.mean()


def test_the_reference_is_what_parity_says(packages: dict[str, Package]) -> None:
    """The golden logits are the emulation's, and the reference's stand beside them."""
    golden = packages["fp16"].golden()
    model = mini_digits()
    np.testing.assert_allclose(
        golden["reference_logits"], reference_logits(model, golden["pixels"]), atol=1e-4
    )
    distance = sqnr_db(golden["reference_logits"], golden["package_logits"])
    assert FP16_DB < distance < 80
