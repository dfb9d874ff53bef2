"""Core ML: the evaluator against torch, op by op, and the packages against the reference."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import FEW, HANGS, MINI, TESTS, jittered
from PIL import Image

if importlib.util.find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

from sepvit_edge.backends import coreml
from sepvit_edge.backends.registry import get_backend
from sepvit_edge.backends.support import coreml_evaluator as evaluator
from sepvit_edge.config.recipe import PlacementBudget, load_recipe
from sepvit_edge.data.preprocess import preprocess
from sepvit_edge.errors import SepViTError
from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.edge import EdgeModel, find_form
from sepvit_edge.model.graph import part_of
from sepvit_edge.model.logits import reference_logits
from sepvit_edge.model.variants import Preprocessing
from sepvit_edge.package.manifest import RuntimeFacts
from sepvit_edge.package.session import open_package
from sepvit_edge.pipeline.golden import golden_images
from sepvit_edge.pipeline.lowering import lowering_job

ct = coreml.ct
mb = coreml.mb
LABELS = ("crane", "dog", "crane", *(str(i) for i in range(3, 10)))
SIZE = 64


def small_model():
    model = jittered(FEW, len(LABELS), SIZE)
    model.config = replace(model.config, labels=LABELS)
    return model


def stating(recipe):
    """A manifest, as far as a session reads it."""
    facts = {"name": "coremltools", "version": "9.0", "minimum": "9.0", "below": "9.1"}
    return SimpleNamespace(runtime=RuntimeFacts(**facts, options=recipe.options))


def lowered(model, recipe, folder, batch=1, taps=False):
    edge = EdgeModel(model, batch, find_form(recipe.edge.form), taps)
    job = lowering_job(model, edge, recipe)
    folder.mkdir(exist_ok=True)
    placement = get_backend("coreml").lower(job, folder)
    session = get_backend("coreml").open(folder, stating(recipe), None)
    return SimpleNamespace(
        folder=folder, placement=placement, session=session, job=job, edge=edge, recipe=recipe
    )


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def packages(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("coreml")
    return {p: lowered(model, load_recipe(f"coreml-{p}"), root / p) for p in ("fp32", "fp16")}


@pytest.fixture(scope="module")
def pixels():
    rule = Preprocessing()
    return np.stack([preprocess(image, rule, SIZE) for image in golden_images()])


def run(session, pixels):
    planar = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
    return np.concatenate([session.run(image[None])[0] for image in planar])


def specification(package):
    return coreml.ct.utils.load_spec(str(package.folder / coreml.MODEL))


def operations(spec):
    function = spec.mlProgram.functions["main"]
    return list(function.block_specializations[function.opset].operations)


def replaced(recipe, **changes):
    return recipe.model_copy(update=changes)


# The evaluator, op by op: tiny programs through the converter's builder and the disk.


def evaluated(tmp_path, body, x, half=False, target=ct.target.iOS16):
    """Build a program of one input, save it, and evaluate it."""

    @mb.program(
        input_specs=[mb.TensorSpec(x.shape, ct.converters.mil.mil.types.fp32)],
        opset_version=target,
    )
    def program(x):
        return body(x)

    with coreml.quiet():
        pipeline = ct.PassPipeline.EMPTY
        pipeline.append_pass("common::add_fp16_cast")
        precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
        converted = ct.convert(
            program,
            minimum_deployment_target=target,
            compute_precision=precision,
            pass_pipeline=pipeline,
            skip_model_load=True,
        )
        package = tmp_path / "op.mlpackage"
        converted.save(str(package))
    (result,) = evaluator.EvaluatorSession(package).run(x)
    return result


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(*shape):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)


def on_grid(x, scale, **more):
    return mb.quantize(input=x, scale=np.float32(scale), output_dtype="int8", **more)


X4, X3, X2 = random(2, 4, 7, 6), random(3, 5, 8), random(5, 16)
W = random(6, 16, seed=1)
CASES = {
    "add": (X2, lambda x: mb.add(x=x, y=W[0].numpy()), lambda x: x + W[0]),
    "add to a constant": (X2, lambda x: mb.add(x=np.float32(2.5), y=x), lambda x: 2.5 + x),
    "sub": (X2, lambda x: mb.sub(x=W[0].numpy(), y=x), lambda x: W[0] - x),
    "mul": (X2, lambda x: mb.mul(x=x, y=np.float32(-0.125)), lambda x: x * -0.125),
    "rsqrt": (
        X2.abs() + 0.1,
        lambda x: mb.rsqrt(x=x, epsilon=np.float32(0.5)),
        lambda x: torch.rsqrt(x + 0.5),
    ),
    "cast": (X2, lambda x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"),
             lambda x: x.half().float()),
    "concat, negative axis": (
        X3,
        lambda x: mb.concat(values=[X3[:, :1].numpy(), x], axis=-2),
        lambda x: torch.cat([X3[:, :1], x], -2),
    ),
    "concat of three": (
        X3, lambda x: mb.concat(values=[x, x, x], axis=0), lambda x: torch.cat([x, x, x])
    ),
    "conv, custom padding": (
        X4,
        lambda x: mb.conv(
            x=x, weight=random(5, 4, 3, 3).numpy(), bias=random(5).numpy(), strides=[2, 1],
            pad_type="custom", pad=[1, 0, 2, 1],
        ),
        lambda x: F.conv2d(
            F.pad(x, (2, 1, 1, 0)), random(5, 4, 3, 3), random(5), stride=(2, 1)
        ),
    ),
    "conv, depthwise": (
        X4,
        lambda x: mb.conv(x=x, weight=random(4, 1, 3, 3).numpy(), groups=4, pad_type="custom",
                          pad=[1, 1, 1, 1]),
        lambda x: F.conv2d(x, random(4, 1, 3, 3), padding=1, groups=4),
    ),
    "conv, valid, dilated": (
        X4,
        lambda x: mb.conv(x=x, weight=random(2, 4, 2, 2).numpy(), dilations=[3, 2]),
        lambda x: F.conv2d(x, random(2, 4, 2, 2), dilation=(3, 2)),
    ),
    "quantize, halves to even, cut off": (
        torch.arange(-300, 300).reshape(4, 150) / 4,
        lambda x: mb.dequantize(input=on_grid(x, 0.5), scale=np.float32(1)),
        lambda x: torch.round(x / 0.5).clamp(-128, 127),
    ),
    "dequantize, zero point": (
        X2,
        lambda x: mb.dequantize(
            input=on_grid(x, 0.03, zero_point=np.int8(7)), scale=np.float32(0.03),
            zero_point=np.int8(7),
        ),
        lambda x: ((torch.round(x / 0.03) + 7).clamp(-128, 127) - 7) * 0.03,
    ),
    "constexpr_affine_dequantize, by channel": (
        X2,
        lambda x: mb.linear(
            x=x,
            weight=mb.constexpr_affine_dequantize(
                quantized_data=integers(6, 16).numpy(), zero_point=np.int8(0),
                scale=W[:, 0].abs().numpy(), axis=0,
            ),
        ),
        lambda x: F.linear(x, integers(6, 16).float() * W[:, :1].abs()),
    ),
    "gelu": (X2 * 3, lambda x: mb.gelu(x=x, mode="EXACT"), F.gelu),
    "layer_norm": (
        X2,
        lambda x: mb.layer_norm(x=x, axes=[-1], gamma=W[0].numpy(), beta=W[1].numpy(),
                                epsilon=np.float32(1e-6)),
        lambda x: F.layer_norm(x, (16,), W[0], W[1], 1e-6),
    ),
    "layer_norm, no affine, two axes": (
        X3, lambda x: mb.layer_norm(x=x, axes=[2, 1]), lambda x: F.layer_norm(x, (5, 8))
    ),
    "linear": (X2, lambda x: mb.linear(x=x, weight=W.numpy(), bias=W[:, 0].numpy()),
               lambda x: F.linear(x, W, W[:, 0])),
    "linear, rank 3, no bias": (
        X3, lambda x: mb.linear(x=x, weight=W[:, :8].numpy()), lambda x: F.linear(x, W[:, :8])
    ),
    "matmul": (X3, lambda x: mb.matmul(x=x, y=random(3, 8, 2).numpy()),
               lambda x: x @ random(3, 8, 2)),
    "matmul, transposed": (
        X3,
        lambda x: mb.matmul(x=x, y=random(3, 2, 5).numpy(), transpose_x=True, transpose_y=True),
        lambda x: x.mT @ random(3, 2, 5).mT,
    ),
    "reduce_mean": (X3, lambda x: mb.reduce_mean(x=x, axes=[1]), lambda x: x.mean(1)),
    "reduce_mean, negative, kept": (
        X4, lambda x: mb.reduce_mean(x=x, axes=[-2, -1], keep_dims=True),
        lambda x: x.mean((2, 3), keepdim=True),
    ),
    "relu": (X3, lambda x: mb.relu(x=x), F.relu),
    "reshape": (X3, lambda x: mb.reshape(x=x, shape=[-1, 4]), lambda x: x.reshape(-1, 4)),
    "slice_by_index": (
        X3, lambda x: mb.slice_by_index(x=x, begin=[0, 1, 2], end=[3, 4, -1], stride=[1, 1, 2]),
        lambda x: x[0:3, 1:4, 2:-1:2],
    ),
    "slice_by_index, masks": (
        X3,
        lambda x: mb.slice_by_index(
            x=x, begin=[2, 1, -1], end=[1, 3, 0], begin_mask=[True, False, False],
            end_mask=[False, True, False], squeeze_mask=[False, False, True],
        ),
        lambda x: x[:1, 1:, -1],
    ),
    "softmax": (X3 * 5, lambda x: mb.softmax(x=x, axis=-1), lambda x: x.softmax(-1)),
    "softmax, first axis": (X3, lambda x: mb.softmax(x=x, axis=0), lambda x: x.softmax(0)),
    "transpose": (
        X4, lambda x: mb.transpose(x=x, perm=[0, -2, 3, 1]), lambda x: x.permute(0, 2, 3, 1)
    ),
    "upsample_bilinear": (
        X4,
        lambda x: mb.upsample_bilinear(
            x=x, scale_factor_height=2, scale_factor_width=3, align_corners=False
        ),
        lambda x: F.interpolate(x, scale_factor=(2.0, 3.0), mode="bilinear", align_corners=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operation_is_what_torch_computes(tmp_path, case):
    x, body, expected = CASES[case]
    target = ct.target.iOS17 if "quantize" in case else ct.target.iOS16
    result = evaluated(tmp_path, body, x.numpy(), target=target)
    np.testing.assert_allclose(result, expected(x).numpy(), rtol=1e-5, atol=2e-6)


def test_every_operation_is_tested_or_is_the_classifier():
    tested = {case.split(",")[0].split(" ")[0] for case in CASES}
    assert tested | {"classify"} == set(evaluator.OPERATIONS)


def test_half_precision_rounds_once_an_operation(tmp_path):
    # 2048 + 1 + 1 is 2048 in float16 sums and 2050 in float32 sums, which float16 can write.
    x = np.array([[2048.0, 1.0, 1.0, 0.0]], np.float32)
    result = evaluated(tmp_path, lambda x: mb.linear(x=x, weight=np.ones((1, 4), np.float32)), x,
                       half=True)  # fmt: skip
    assert result == 2050
    # The sum 2049 lies between two numbers of float16; the next operation sees the rounded one.
    x = np.array([[2048.0, 1.0]], np.float32)

    def body(x):
        total = mb.linear(x=x, weight=np.ones((1, 2), np.float32))
        return mb.sub(x=total, y=np.float32(2048))

    assert evaluated(tmp_path, body, x, half=True) == 0
    assert evaluated(tmp_path, body, x) == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (lambda x: mb.relu6(x=x, name="clip_here"), r"relu6 \(clip_here\)"),
        (lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"), "gelu.*TANH_APPROXIMATION"),
        (lambda x: mb.layer_norm(x=x, axes=[0]), r"layer_norm.*axes is \[0\]"),
        (lambda x: mb.reshape(x=x, shape=[0, -1]), "reshape.*0 in the shape"),
        (
            lambda x: mb.slice_by_index(x=x, begin=[4, 0], end=[0, 16], stride=[-1, 1]),
            "slice_by_index.*step",
        ),
        (lambda x: mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32"), "cast to int32"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(tmp_path, body, named):
    with pytest.raises(SepViTError, match=named):
        evaluated(tmp_path, body, X2.numpy())


def test_weights_are_read_as_coremltools_reads_them(packages):
    from coremltools.libmilstoragepython import _BlobStorageReader

    for precision, read in (("fp32", "read_float_data"), ("fp16", "read_fp16_data")):
        package = packages[precision].folder / coreml.MODEL
        reader = _BlobStorageReader(str(package / evaluator.WEIGHTS))
        constants = packages[precision].session._constants
        compared = 0
        for operation in operations(specification(packages[precision])):
            value = operation.attributes["val"]
            if operation.type == "const" and value.HasField("blobFileValue"):
                stored = np.array(getattr(reader, read)(value.blobFileValue.offset))
                stored = stored.view(np.float16) if precision == "fp16" else stored
                found = constants[operation.outputs[0].name].numpy().ravel()
                np.testing.assert_array_equal(found, stored.astype(np.float32))
                compared += 1
        assert compared > 80


# Packages


def test_fp32_is_the_reference_to_rounding(packages, model, pixels):
    package = packages["fp32"]
    reference = reference_logits(model, pixels)
    assert sqnr_db(reference, run(package.session, pixels)) > 110
    # Bit by bit the edge form, since both compute with torch: nothing was lost on the way.
    planar = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        edge = np.concatenate([package.edge(image[None]).numpy() for image in planar])
    assert sqnr_db(edge, run(package.session, pixels)) > 130


def test_fp16_agrees_with_the_reference(packages, model, pixels):
    reference, measured = (
        reference_logits(model, pixels), run(packages["fp16"].session, pixels)
    )  # fmt: skip
    assert sqnr_db(reference, measured) > 50
    assert (reference.argmax(1) == measured.argmax(1)).all()


def test_fp16_stands_a_unit_that_has_no_subnormal_numbers(packages, model, pixels, monkeypatch):
    def flushed(value):
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            return value
        return torch.where(value.abs() < 2**-14, 0.0, value)

    session = packages["fp16"].session
    constants = {name: flushed(value) for name, value in session._constants.items()}
    monkeypatch.setattr(session, "_constants", constants)
    flushing = {
        kind: lambda function=function, **inputs: flushed(function(**inputs))
        for kind, function in evaluator.OPERATIONS.items()
    }
    monkeypatch.setattr(evaluator, "OPERATIONS", flushing)
    reference = reference_logits(model, pixels)
    assert sqnr_db(reference, run(session, pixels)) > 50


def test_half_the_size(packages):
    sizes = {
        name: (package.folder / coreml.MODEL / evaluator.WEIGHTS).stat().st_size
        for name, package in packages.items()
    }
    assert 0.49 < sizes["fp16"] / sizes["fp32"] < 0.52


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_app_gets_an_image_in_and_label_probabilities_and_logits_out(
    packages, pixels, precision
):
    spec = specification(packages[precision])
    (image,) = spec.description.input
    assert image.name == "pixels"
    assert image.type.imageType.width == image.type.imageType.height == SIZE
    assert image.type.imageType.colorSpace == image.type.imageType.RGB
    logits, label, probabilities = spec.description.output
    assert logits.name == "logits"
    assert list(logits.type.multiArrayType.shape) == [1, len(LABELS)]
    assert logits.type.multiArrayType.dataType == logits.type.multiArrayType.FLOAT32
    assert label.type.WhichOneof("Type") == "stringType"
    assert probabilities.type.dictionaryType.HasField("stringKeyType")
    assert spec.description.predictedFeatureName == label.name
    assert spec.description.predictedProbabilitiesName == probabilities.name

    planar = np.ascontiguousarray(pixels[:1].transpose(0, 3, 1, 2), np.float32)
    results = packages[precision].session.evaluate(planar)
    expected = torch.from_numpy(results["logits"]).softmax(1)[0]
    named = results[probabilities.name]
    # The two cranes can be told apart, as keys of a dictionary must be.
    assert list(named) == ["crane (0)", "dog", "crane (2)", *LABELS[3:]]
    np.testing.assert_allclose(list(named.values()), expected, rtol=1e-5)
    assert results[label.name] == list(named)[int(expected.argmax())]


def test_the_classifier_is_written_as_coremltools_writes_one(packages, tmp_path):
    @mb.program(
        input_specs=[mb.TensorSpec((1, 10), ct.converters.mil.mil.types.fp32)],
        opset_version=ct.target.iOS16,
    )
    def program(x):
        return mb.softmax(x=x, axis=-1, name="probabilities")

    names = ["crane (0)", "dog", "crane (2)", *LABELS[3:]]
    with coreml.quiet():
        theirs = ct.convert(
            program,
            classifier_config=ct.ClassifierConfig(names),
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        ).get_spec()
    ours = specification(packages["fp32"])
    for kind in ("softmax", "classify"):
        first, second = ([o for o in operations(s) if o.type == kind][-1] for s in (theirs, ours))
        for operation in (first, second):
            operation.attributes.clear()  # names
            for parameter in ("x", "axis"):
                operation.inputs.pop(parameter, None)
        assert first == second
    for spec in (theirs, ours):
        for output in spec.description.output:
            output.shortDescription = ""
    assert list(theirs.description.output) == list(ours.description.output)[1:]


def test_xcode_is_told_what_the_manifest_says_and_no_date(packages):
    description = specification(packages["fp16"]).description
    metadata = description.metadata
    assert "SepViT-Lite" in metadata.shortDescription and "fp16" in metadata.shortDescription
    assert metadata.license.startswith("Apache-2.0") and not metadata.author
    assert metadata.versionString
    facts = dict(metadata.userDefined)
    assert facts["com.apple.coreml.model.preview.type"] == "imageClassifier"
    assert facts["variant"] == FEW and facts["image_size"] == str(SIZE)
    rule = json.loads(facts["preprocessing"])
    assert rule["resize_rule"] == "pillow-bilinear-antialias" and rule["crop_size"] == SIZE
    assert not [key for key in facts if "date" in key or "source" in key]
    for feature in (*description.input, *description.output):
        assert feature.shortDescription


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_names_tell_block_and_part(packages, precision):
    silent = [
        operation.type
        for operation in operations(specification(packages[precision]))
        if operation.type != "const" and part_of(operation.outputs[0].name) is None
    ]
    # The cast of the pixels, and the classifier; the logits, and their cast, are the head's.
    casts = {"fp32": [], "fp16": ["cast"]}[precision]
    assert sorted(silent) == [*casts, "classify", "softmax"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_placement_counts_operations_and_claims_no_device(packages, model, precision):
    placement = packages[precision].placement
    assert placement.device == "not decided on this system"
    assert placement.macs_unattributed == 0
    assert not any(group.accelerated for group in placement.placed)
    shares = {group.precision: group.macs_share for group in placement.placed}
    assert shares[precision] == 1
    kinds = {g.precision: g.kinds for g in placement.placed}[precision]
    layers = Counter(type(module) for module in packages[precision].edge.modules())
    assert kinds["linear"] == layers[torch.nn.Linear]
    assert kinds["layer_norm"] == sum(isinstance(m, torch.nn.LayerNorm) for m in model.modules())
    # Two products an attention; PSA's are those of the blocks with window tokens.
    blocks = [block for stage in model.blocks for block in stage]
    assert kinds["matmul"] == 2 * (len(blocks) + sum(block.separable for block in blocks))


def run_quietly(script):
    """Run a script in another process, where it must say nothing."""
    paths = [str(TESTS), str(TESTS / "runtimes")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{script}"],
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def assert_same_model(first, again):
    files = sorted(p.relative_to(first).as_posix() for p in first.rglob("*") if p.is_file())
    assert files == [
        "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
        "model.mlpackage/Manifest.json",
    ]
    for file in files:
        digests = {hashlib.sha256((root / file).read_bytes()).digest() for root in (first, again)}
        assert len(digests) == 1, file


def lower_mini(folder):
    """Run by the test below in another process too."""
    return lowered(jittered(MINI, image_size=32), load_recipe("coreml-fp16"), folder)


def test_lowering_in_another_process_gives_the_same_bytes_and_says_nothing(tmp_path):
    again = tmp_path / "again"
    run_quietly(f"""
from pathlib import Path
from test_coreml import lower_mini
lower_mini(Path({str(again)!r}))
""")
    assert_same_model(lower_mini(tmp_path / "first").folder, again)


@pytest.mark.slow
def test_an_export_in_another_process_has_the_same_bytes_and_says_nothing(packages, tmp_path):
    again = tmp_path / "package"
    run_quietly(f"""
from sepvit_edge.pipeline.export import export_package
from test_coreml import small_model
export_package(small_model(), "coreml", "fp16", {str(again)!r}, images=8)
""")
    assert_same_model(packages["fp16"].folder, again)
    session = open_package(again)
    manifest, golden = session.package.manifest, session.package.golden()
    assert manifest.parity.sqnr_db > 50 and manifest.parity.top1_agreement == 1
    assert manifest.runtime.name == "coremltools" and manifest.input.layout == "NCHW"
    logits = session.run_pixels(golden["pixels"])[0]
    np.testing.assert_array_equal(logits, golden["package_logits"])


def test_coremltools_itself_opens_the_package(packages):
    with coreml.quiet():
        opened = ct.models.MLModel(
            str(packages["fp16"].folder / coreml.MODEL), skip_model_load=True
        )
    assert opened.weights_dir.endswith("weights")
    assert opened.get_spec().specificationVersion == ct.target.iOS16


def test_taps_are_outputs_in_order(model, tmp_path, pixels):
    recipe = load_recipe("coreml-fp32")
    twin = lowered(model, recipe, tmp_path / "twin", taps=True)
    x = np.ascontiguousarray(pixels[:1].transpose(0, 3, 1, 2), np.float32)
    results = twin.session.run(x)
    assert twin.session.outputs[:2] == ["logits", "stages_0_patch_embedding"]
    assert len(results) == len(twin.job.outputs)
    with torch.no_grad():
        expected = twin.edge(torch.from_numpy(x))
    for name, found, value in zip(twin.job.outputs, results, expected, strict=True):
        assert sqnr_db(value.numpy(), found) > 110, name
    assert twin.placement.macs_unattributed == 0


def test_a_batch_comes_as_an_array(model, tmp_path, pixels):
    recipe = load_recipe("coreml-fp32")
    recipe = replaced(recipe, options={"image_input": False, "deployment_target": "iOS17"})
    package = lowered(model, recipe, tmp_path / "array", batch=2)
    planar = np.ascontiguousarray(pixels[:2].transpose(0, 3, 1, 2), np.float32)
    (logits,) = package.session.run(planar)
    assert sqnr_db(reference_logits(model, pixels[:2]), logits) > 110
    spec = specification(package)
    assert spec.description.input[0].type.WhichOneof("Type") == "multiArrayType"
    assert [o.name for o in spec.description.output] == ["logits"]
    assert json.loads(spec.description.metadata.userDefined["labels"]) == list(LABELS)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"precision": "int8"}, 'set deployment_target = "iOS17"'),
        ({"options": {"compute_units": "gpu"}}, "the recipe's options: compute_units"),
        ({"options": {"deployment_target": "iOS15"}}, "the recipe's options: deployment_target"),
        ({"placement": PlacementBudget(min_macs_share=1)}, "on macOS only"),
    ],
)
def test_a_recipe_that_cannot_be_kept_is_refused(packages, tmp_path, changes, sentence):
    job = packages["fp32"].job
    job = SimpleNamespace(**vars(job) | {"recipe": replaced(job.recipe, **changes)})
    with pytest.raises(SepViTError, match=sentence):
        get_backend("coreml").lower(job, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"layout": "NHWC", "dtype": "uint8"}, "rows-float"),
        ({"shape": [2, 3, SIZE, SIZE]}, "one image a call, not 2; set image_input = false"),
    ],
)
def test_an_input_that_core_ml_does_not_take_is_refused(packages, tmp_path, facts, sentence):
    job = packages["fp32"].job
    facts = job.input.model_copy(update=facts)
    with pytest.raises(SepViTError, match=sentence):
        get_backend("coreml").lower(SimpleNamespace(**vars(job) | {"input": facts}), tmp_path)


def truncate(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (evaluator.WEIGHTS, truncate(0.5)),
        (evaluator.WEIGHTS, truncate(0)),
        (evaluator.WEIGHTS, Path.unlink),
        (evaluator.WEIGHTS, lambda path: path.write_bytes(b"\0" * path.stat().st_size)),
        (evaluator.SPECIFICATION, truncate(0.5)),
        (evaluator.SPECIFICATION, truncate(0)),
        (evaluator.SPECIFICATION, Path.unlink),
        (evaluator.SPECIFICATION, lambda path: path.write_bytes(b"\xff" * 100)),
    ],
)
def test_a_damaged_package_is_one_sentence(packages, tmp_path, file, damage):
    package = tmp_path / coreml.MODEL
    shutil.copytree(packages["fp16"].folder / coreml.MODEL, package)
    damage(package / file)
    with pytest.raises(SepViTError, match=r"is damaged .*; export again$") as raised:
        evaluator.EvaluatorSession(package)
    assert "\n" not in str(raised.value)


def test_a_program_that_contradicts_itself_is_refused(packages, tmp_path):
    package = tmp_path / coreml.MODEL
    shutil.copytree(packages["fp32"].folder / coreml.MODEL, package)
    spec = specification(packages["fp32"])
    target = next(o for o in operations(spec) if o.type == "transpose")
    target.outputs[0].type.tensorType.dimensions[0].constant.size = 7
    (package / evaluator.SPECIFICATION).write_bytes(spec.SerializeToString())
    with pytest.raises(SepViTError, match=r"transpose .* gives .* declares \(7, "):
        evaluator.EvaluatorSession(package).run(np.zeros((1, 3, SIZE, SIZE), np.float32))


def test_there_are_no_times_here(packages):
    expected = "run" if sys.platform == "darwin" else "evaluated"
    assert get_backend("coreml").verification() == expected
    with pytest.raises(SepViTError, match="on a Mac"):
        packages["fp16"].session.profile(np.zeros((1, 3, SIZE, SIZE), np.float32), 1)


# What macOS does, with stand-ins for Core ML.


class FakeModel:
    """Keeps what it is given and answers as Core ML does: by name."""

    def __init__(self, path, compute_units):
        self.units = compute_units
        self.spec = ct.utils.load_spec(path)

    def get_spec(self):
        return self.spec

    def predict(self, inputs):
        self.inputs = inputs
        row = np.arange(len(LABELS), dtype=np.float64)[None]
        return {"classLabel": "dog", "classLabel_probs": {}, "logits": row}


def on_a_mac(monkeypatch):
    monkeypatch.setattr(coreml, "_MAC", True)
    monkeypatch.setattr(ct.models, "MLModel", FakeModel)


def test_core_ml_gets_an_image_of_the_same_pixels(packages, pixels, monkeypatch):
    on_a_mac(monkeypatch)
    recipe = replaced(load_recipe("coreml-fp16"), options={"compute_units": "cpu_and_ne"})
    folder = packages["fp16"].folder
    session = get_backend("coreml").open(folder, stating(recipe), None)
    x = np.ascontiguousarray(pixels[:1].transpose(0, 3, 1, 2), np.float32)
    (logits,) = session.run(x)
    assert logits.dtype == np.float32 and logits.shape == (1, len(LABELS))
    assert session._model.units == ct.ComputeUnit.CPU_AND_NE
    image = session._model.inputs["pixels"]
    assert isinstance(image, Image.Image) and image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels[0])
    with pytest.raises(SepViTError, match="does not report times"):
        session.profile(x, 1)


def test_core_ml_failing_is_one_sentence(packages, monkeypatch):
    on_a_mac(monkeypatch)
    manifest = stating(load_recipe("coreml-fp16"))
    session = get_backend("coreml").open(packages["fp16"].folder, manifest, None)
    monkeypatch.setattr(
        FakeModel, "predict", lambda *_: (_ for _ in ()).throw(RuntimeError("a\nb"))
    )
    with pytest.raises(SepViTError, match=r"^Core ML cannot run the package: a$"):
        session.run(np.zeros((1, 3, SIZE, SIZE), np.float32))
    with pytest.raises(SepViTError, match=r"^Core ML cannot load "):
        get_backend("coreml").open(packages["fp16"].folder / "nowhere", manifest, None)


class MLCPUComputeDevice:
    pass


class MLNeuralEngineComputeDevice:
    pass


def test_the_plan_of_core_ml_becomes_the_placement(packages, monkeypatch):
    package = packages["fp16"]
    spec = specification(package)
    cpu, engine = MLCPUComputeDevice(), MLNeuralEngineComputeDevice()

    def usage(operation):
        if operation.operator_name == "const":
            return None
        able = operation.operator_name != "classify"
        there = able and operation.operator_name != "reduce_mean"
        return SimpleNamespace(
            preferred_compute_device=engine if there else cpu,
            supported_compute_devices=[cpu, engine] if able else [cpu],
        )

    listed = [SimpleNamespace(operator_name=o.type, outputs=o.outputs) for o in operations(spec)]
    block = SimpleNamespace(operations=listed)
    program = SimpleNamespace(functions={"main": SimpleNamespace(block=block)})
    plan = SimpleNamespace(
        model_structure=SimpleNamespace(program=program),
        get_compute_device_usage_for_mlprogram_operation=usage,
    )
    monkeypatch.setattr(coreml, "_MAC", True)
    monkeypatch.setattr(ct.models.utils, "compile_model", lambda path: path)
    monkeypatch.setattr(
        coreml, "MLComputePlan", SimpleNamespace(load_from_path=lambda path, units: plan)
    )
    path, options = package.folder / coreml.MODEL, coreml.Options(compute_units="cpu_and_ne")
    placement = coreml._placement(spec, package.job, path, options)
    assert placement.device == "macOS, cpu_and_ne"
    inside = [group for group in placement.placed if group.accelerated]
    assert {group.where for group in inside} == {"Neural Engine"}
    assert sum(group.macs_share for group in inside) == 1
    reasons = {(o.kind, o.part): o.reason for o in placement.outside}
    assert reasons == {
        ("reduce_mean", "head"): "Core ML prefers it there",
        ("classify", None): "Neural Engine does not support it",
    }
