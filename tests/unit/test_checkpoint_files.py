"""Checkpoints as training tools write them, and files that are none."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import MINI, Runner, jittered
from safetensors.torch import save_file

from sepvit_edge import SepViTError, load_checkpoint, save_checkpoint
from sepvit_edge.checkpoints.metadata import KEY
from sepvit_edge.checkpoints.source import weights_digest
from sepvit_edge.model.edge import EdgeModel
from sepvit_edge.model.quantized import Quantization
from sepvit_edge.quantization.scheme import quantizable_layers, scheme_float, uncalibrated

State = dict[str, Any]


@pytest.fixture(scope="module")
def state() -> State:
    return dict(jittered("lite").state_dict())


@pytest.fixture(scope="module")
def digest() -> str:
    return weights_digest(jittered("lite"))


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def inside(state: State) -> State:
    """Compiled block by block."""
    return {key.replace("blocks.0.", "blocks.0._orig_mod."): v for key, v in state.items()}


WRAPPINGS = {
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}},
    "net": lambda s: {"net": s, "acc": 71.5, "epoch": 3},
    "DeepSpeed": lambda s: {"module": s, "dp_world_size": 8},
    "averaged only": lambda s: {"model_ema": s},
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "DDP and compiled": lambda s: {"state_dict": prefixed("module._orig_mod.", s)},
    "compiled and DDP": lambda s: {"model": prefixed("_orig_mod.module.", s)},
    "twice DDP": lambda s: prefixed("module.module.", s),
    "Lightning": lambda s: {"state_dict": prefixed("model.", s), "hyper_parameters": {"lr": 0.1}},
    "mmpretrain": lambda s: {"meta": {"a": 1}, "state_dict": prefixed("backbone.", s)},
    "distillation": lambda s: prefixed("student.module.backbone.", s),
    "two containers": lambda s: {"checkpoint": {"model": s}},
    "averaged by torch": lambda s: prefixed("module.", s) | {"n_averaged": torch.tensor(3)},
    "compiled by block": inside,
    "with a number": lambda s: s | {"epoch": 3},
    "optimizer moments": lambda s: {
        "model": s,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1}]},
    },
}


@pytest.mark.parametrize("how", WRAPPINGS)
def test_wrapped_checkpoints_load(tmp_path: Path, state: State, digest: str, how: str) -> None:
    torch.save(WRAPPINGS[how](state), tmp_path / "wrapped.pth")
    assert weights_digest(load_checkpoint(tmp_path / "wrapped.pth")) == digest


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("safetensors", ".pth"), ("safetensors", ".ckpt"), ("torch", ".safetensors"), ("legacy", "")],
)
def test_the_content_decides_not_the_suffix(
    tmp_path: Path, state: State, digest: str, form: str, suffix: str
) -> None:
    path = tmp_path / f"file{suffix}"
    if form == "safetensors":
        save_file(prefixed("model.", state), path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "torch")
    assert weights_digest(load_checkpoint(path)) == digest


def halved(state: State) -> State:
    return {key: value * 0.5 for key, value in state.items()}


BOTH = {
    "model": lambda raw, ema: {"model": raw, "model_ema": ema},
    "state_dict": lambda raw, ema: {"state_dict_ema": ema, "state_dict": raw},
    "model.net": lambda raw, ema: {
        "model": {"net": raw},
        "ema": {"module": prefixed("module.", ema)},
    },
    "net": lambda raw, ema: prefixed("net.", raw) | prefixed("ema_net.module.", ema),
    ".": lambda raw, ema: raw | prefixed("ema.", ema),
}


@pytest.mark.parametrize("raw", BOTH)
def test_of_raw_and_averaged_weights_one_is_taken_and_named(
    tmp_path: Path, state: State, digest: str, raw: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "both.pth"
    torch.save(BOTH[raw](halved(state), state), path)
    with caplog.at_level(logging.WARNING):
        assert weights_digest(load_checkpoint(path)) == digest
    (record,) = caplog.records
    taken = re.search("taking '(.*ema.*)', for the other one give .*::(.*)$", record.getMessage())
    assert taken and taken[2] == raw
    other = load_checkpoint(f"{path}::{raw}")
    assert torch.equal(other.head.weight, state["head.weight"] * 0.5)
    assert weights_digest(load_checkpoint(f"{path}::{taken[1]}")) == digest
    assert len(caplog.records) == 1  # who names one needs no warning
    with pytest.raises(SepViTError, match=f"holds no weights under 'best', but .*'{raw}'"):
        load_checkpoint(f"{path}::best")


def test_of_several_models_none_is_guessed(tmp_path: Path, state: State) -> None:
    torch.save({"student": state, "teacher": halved(state)}, tmp_path / "two.pth")
    with pytest.raises(SepViTError, match=r"'student' and 'teacher'; name one: .*pth::student"):
        load_checkpoint(tmp_path / "two.pth")
    half = load_checkpoint(f"{tmp_path / 'two.pth'}::teacher")
    assert torch.equal(half.head.weight, state["head.weight"] * 0.5)


def test_a_command_says_which_weights_it_takes(
    tmp_path: Path, state: State, run_command: Runner
) -> None:
    torch.save({"model": halved(state), "model_ema": state}, tmp_path / "both.pth")
    done = run_command("export", "--weights", tmp_path / "both.pth", "--data", "digits",
                       "--precision", "int8", "--keep-float", "no.layer",
                       "--output", tmp_path / "p")  # fmt: skip
    assert done.status == 2 and "warning: both.pth holds" in done.err, done.err
    assert "taking 'model_ema'" in done.err


def archive(*members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for member in members:
            made.writestr(member, b"0")
    return file.getvalue()


OTHERS = {
    "an empty file": b"",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a web page": b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>",
    "a text file": b"hello, this is \xc3\xa4 text",
    "a text file (it begins with '{": b'{"error": "not found"}',
    "the index of a checkpoint in several files": b'{"metadata": {}, "weight_map": {"a": "b"}}',
    "a gzip file": gzip.compress(b"weights"),
    "a TFLite model": b"\x1c\0\0\0TFL3\x14\0 \0",
    "an ExecuTorch program": b"\x1c\0\0\0ET12\x14\0 \0",
    "an ONNX model": b"\x08\x08\x12\x07pytorch\x1a\x052.5.0:",
    "an archive of NumPy arrays": archive("a.npy"),
    "a zip archive": archive("model.pth", "README"),
    "a TorchScript archive": archive("x/data.pkl", "x/constants.pkl", "x/code/__torch__.py"),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n\0\0",
    "a JPEG image": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "a tar archive": bytes(257) + b"ustar\x0000" + bytes(300),
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_checkpoint_are_recognised(
    tmp_path: Path, what: str, suffix: str
) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(OTHERS[what])
    with pytest.raises(SepViTError) as refusal:
        load_checkpoint(path)
    sentence = str(refusal.value)
    assert sentence.startswith(f"{path} is {what}") and "not a checkpoint; " in sentence
    assert "\n" not in sentence


def test_folders_and_pipes_are_no_checkpoints(tmp_path: Path, state: State) -> None:
    with pytest.raises(SepViTError, match=r"is a folder, not a checkpoint; name a file in it$"):
        load_checkpoint(tmp_path)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(SepViTError, match=r"for example .*/a\.pth$"):
        load_checkpoint(tmp_path)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(SepViTError, match="is an exported package"):
        load_checkpoint(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SepViTError, match="is a device or a pipe"):
        load_checkpoint(tmp_path / "pipe")
    with pytest.raises(SepViTError, match=r"there is no checkpoint|cannot be read"):
        load_checkpoint("a\0b")
    with pytest.raises(SepViTError, match="cannot be read"):
        load_checkpoint("a" * 5000)


def test_a_refusal_says_what_was_recognised(tmp_path: Path, state: State) -> None:
    def refusal(content: object) -> str:
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(SepViTError) as refused:
            load_checkpoint(tmp_path / "bad.pth")
        assert "\n" not in str(refused.value)
        return str(refused.value)

    short = {key: value for key, value in state.items() if not key.startswith("head.")}
    said = refusal({"state_dict": prefixed("module.model.", short)})
    assert "weights under 'state_dict', prefix 'module.model.' removed" in said
    assert "the nearest, SepViT-Lite, it differs by 2 missing, first head.weight" in said

    said = refusal(prefixed("model.", state) | {"loss.weight": torch.zeros(3)})
    assert "prefix 'model.' removed) does not fit SepViT-Lite with 10 classes" in said
    assert "1 unexpected, first loss.weight" in said

    said = refusal({"state_dict": state | {"norm.bias": torch.zeros(7)}})
    assert "1 misshapen, first norm.bias (7,) instead of (256,)" in said

    said = refusal({"epoch": 3, "optimizer": {}, "args": {"lr": 1}})
    assert "holds no state dict (its keys: epoch, optimizer, args)" in said
    assert "holds no state dict but a list" in refusal([torch.zeros(2)])
    assert "holds no state dict but a Tensor" in refusal(torch.zeros(2))
    assert "holds no state dict (its keys: 0, 1)" in refusal({0: torch.zeros(2), 1: torch.ones(2)})
    assert "head.bias is a int, not a tensor" in refusal(state | {"head.bias": 3})
    assert "no key is one of its (first keys: fc.weight)" in refusal({"fc.weight": torch.ones(2)})
    circle: State = {"a": 1}
    circle["circle"] = circle
    assert "holds no state dict" in refusal(circle)


def odd(kind: str, value: torch.Tensor) -> torch.Tensor:
    if kind == "nested":
        return torch.nested.nested_tensor([value[0], value[1]])
    if kind == "quantised":
        return torch.quantize_per_tensor(value, 0.01, 0, torch.qint8)
    if kind == "quantised by channel":
        scales = torch.full((len(value),), 0.01)
        return torch.quantize_per_channel(value, scales, torch.zeros(len(value)), 0, torch.qint8)
    if kind.startswith("sparse"):
        layout = getattr(torch, kind)
        blocks = {"blocksize": (2, 2)} if kind in ("sparse_bsr", "sparse_bsc") else {}
        return value.to_sparse(layout=layout, **blocks)
    if kind == "meta":
        return value.to("meta")
    return value.to(getattr(torch, kind))


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("meta", "has a shape and no values"),
        ("sparse_coo", "is stored as torch.sparse_coo: save it by value.to_dense()"),
        ("sparse_csr", "is stored as torch.sparse_csr"),
        ("sparse_csc", "is stored as torch.sparse_csc"),
        ("sparse_bsr", "is stored as torch.sparse_bsr"),
        ("sparse_bsc", "is stored as torch.sparse_bsc"),
        ("nested", "is a nested tensor"),
        ("quantised", "is quantised by torch"),
        ("quantised by channel", "is quantised by torch"),
        ("complex64", "holds complex64"),
        ("bool", "holds bool without scales"),
        ("uint8", "holds uint8 without scales"),
        ("int8", "holds int8 without scales"),
        ("int64", "holds int64 without scales"),
        ("float8_e4m3fn", "holds float8_e4m3fn without scales"),
        ("float8_e5m2", "holds float8_e5m2 without scales"),
    ],
)
def test_tensors_that_are_no_weights_are_named(
    tmp_path: Path, state: State, kind: str, fault: str
) -> None:
    torch.save(state | {"head.weight": odd(kind, state["head.weight"])}, tmp_path / "odd.pth")
    with pytest.raises(SepViTError) as refusal:
        load_checkpoint(tmp_path / "odd.pth")
    assert f"odd.pth cannot be used: head.weight {fault}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read_as_float32(tmp_path: Path, state: State, dtype: Any) -> None:
    torch.save({key: value.to(dtype) for key, value in state.items()}, tmp_path / "x.pth")
    loaded = load_checkpoint(tmp_path / "x.pth")
    assert loaded.head.weight.dtype == torch.float32
    assert torch.equal(loaded.head.weight, state["head.weight"].to(dtype).float())


def stored(path: Path) -> tuple[State, dict[str, Any]]:
    """Read a file of ours without the product."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()[KEY])


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, dict[str, Any]]:
    path = tmp_path_factory.mktemp("ours") / "x.safetensors"
    save_checkpoint(jittered(MINI), path)
    return stored(path)


def refused(path: Path, state: State, metadata: object) -> str:
    save_file(state, path, {KEY: metadata if isinstance(metadata, str) else json.dumps(metadata)})
    with pytest.raises(SepViTError) as refusal:
        load_checkpoint(path)
    assert "\n" not in str(refusal.value) and path.name in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    "text", ["[]", '"x"', "null", "1", "", "{", "NaN", "[" * 100_000, '{"config": 1e999}']
)
def test_metadata_of_any_shape_is_refused(tmp_path: Path, ours, text: str) -> None:
    assert "has damaged metadata" in refused(tmp_path / "x.safetensors", ours[0], text)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("config", "x", "config"),
        ("config", None, "config"),
        ("config", [], "config"),
        ("config", {}, "config.variant: Field required"),
        ("trained_on", 5, "trained_on"),
        ("quantization", [], "quantization"),
        ("quantization", None, "quantization"),
        ("variant", None, "config.variant"),
        ("variant", "x", "unknown variant 'x'"),
        ("variant", "lite-1-1-1-999999999", "unknown variant"),
        ("num_classes", 10.0, "config.num_classes"),
        ("num_classes", "10", "config.num_classes"),
        ("num_classes", True, "config.num_classes"),
        ("num_classes", 0, "1 to 1,000,000 classes, not 0"),
        ("num_classes", 10**12, "1 to 1,000,000 classes, not 1,000,000,000,000"),
        ("image_size", 10**9, "image size 1000000000 is over the limit of 2048: attention's"),
        ("image_size", 2080, "over the limit of 2048"),
        ("image_size", 64.0, "config.image_size"),
        ("image_size", -64, "not a multiple of 32"),
        ("labels", "0123456789", "config.labels"),
        ("labels", [0] * 10, "config.labels.0"),
        ("labels", ["a"], "1 labels do not fit 10 classes"),
        ("preprocessing", None, "config.preprocessing"),
        ("preprocessing", {"crop": "x", "mean": [0, 0, 0], "std": [1, 1, 1]}, "preprocessing.crop"),
        ("preprocessing", {"crop": 1, "mean": [0, 0], "std": [1, 1, 1]}, "preprocessing.mean"),
        ("preprocessing", {"crop": 1, "mean": [0, 0, 0], "std": [1, 0, 1]}, "std must be positive"),
        ("heads", 3, "config.heads is not a known key"),
    ],
)
def test_configurations_of_any_shape_are_refused(
    tmp_path: Path, ours, key: str, value: object, sentence: str
) -> None:
    state, metadata = ours
    top = key in ("config", "trained_on", "quantization")
    changed = {key: value} if top else {"config": metadata["config"] | {key: value}}
    assert sentence in refused(tmp_path / "x.safetensors", state, metadata | changed)


@pytest.fixture(scope="module")
def integers(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, dict[str, Any]]:
    """A quantised checkpoint, as it is stored."""
    model = jittered(MINI)
    edge = EdgeModel(model)
    model.quantization = uncalibrated(edge, scheme_float(quantizable_layers(edge)))
    path = tmp_path_factory.mktemp("integers") / "q.safetensors"
    save_checkpoint(model, path)
    assert isinstance(load_checkpoint(path).quantization, Quantization)
    return stored(path)


LAYER = "stages.0.blocks.0.mlp.fc1"


@pytest.mark.parametrize("scale", ["NaN", "Infinity", "-Infinity", "0", "-1", '"x"', "[1]", "null",
                                   "1e-300", "1e300", "true", "{}"])  # fmt: skip
@pytest.mark.parametrize("place", [0, 1])
def test_scales_of_any_shape_are_refused(tmp_path: Path, integers, scale: str, place: int) -> None:
    state, metadata = integers
    pair = ["0.1", "0.1"]
    pair[place] = scale
    scales = metadata["quantization"]["scales"] | {LAYER: "HERE"}
    changed = metadata | {"quantization": metadata["quantization"] | {"scales": scales}}
    text = json.dumps(changed).replace('"HERE"', f"[{', '.join(pair)}]")
    assert LAYER in refused(tmp_path / "q.safetensors", state, text)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scheme": "w4a4"}, "scheme that is not supported, 'w4a4'; supported: 'w8a8"),
        ({"scheme": None}, "quantization.scheme"),
        ({"scales": []}, "quantization.scales"),
        ({"scales": None}, "quantization.scales"),
        ({"scales": {}}, "missing, first"),
        ({"float_layers": []}, "quantization.float_layers"),
        ({"float_layers": {}}, "does not fit the model: stages.0.patch_embedding.proj"),
        ({"calibration": None}, "quantization.calibration"),
        ({"calibration": {"data": "x"}}, "quantization.calibration.images: Field required"),
    ],
)
def test_quantisations_of_any_shape_are_refused(
    tmp_path: Path, integers, change: dict[str, Any], sentence: str
) -> None:
    state, metadata = integers
    changed = metadata | {"quantization": metadata["quantization"] | change}
    assert sentence in refused(tmp_path / "q.safetensors", state, changed)


@pytest.mark.parametrize("layer", ["x", "stages.0.blocks.7.mlp.fc1", "head.classifier.x", ""])
def test_unknown_int8_layers_are_refused(tmp_path: Path, integers, layer: str) -> None:
    state, metadata = integers
    parts = {f"quantized.{layer}.{p}": state[f"quantized.{LAYER}.{p}"].clone() for p in PARTS}
    scales = metadata["quantization"]["scales"] | {layer: [0.1, 0.1]}
    changed = metadata | {"quantization": metadata["quantization"] | {"scales": scales}}
    said = refused(tmp_path / "q.safetensors", state | parts, changed)
    assert f"does not fit the model: {layer}" in said


PARTS = ("weight", "weight_scale")


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("weight_scale", lambda v: v[:-1].clone(), "for each of its 128 channels"),
        ("weight_scale", lambda v: v[:, None].clone(), "for each of its 128 channels"),
        ("weight_scale", lambda v: v.double(), "torch.float64"),
        ("weight_scale", lambda v: v * float("nan"), "not positive and finite"),
        ("weight_scale", lambda v: v * float("inf"), "not positive and finite"),
        ("weight_scale", lambda v: v * 0, "not positive and finite"),
        ("weight_scale", lambda v: -v, "not positive and finite"),
        ("weight_scale", lambda v: v + 3e38, "not positive and finite"),
        ("weight_scale", lambda v: None, "lacks its weight or its weight_scale"),
        ("weight", lambda v: None, "lacks its weight or its weight_scale"),
        ("weight", lambda v: v.float(), "a weight of torch.float32"),
        ("weight", lambda v: v.to(torch.uint8), "a weight of torch.uint8"),
        ("weight", lambda v: v[:, :-1].clone(), "does not fit the model"),
        ("weight", lambda v: v[:0].clone(), "not integers"),
        ("weight", lambda v: v[0, 0].clone(), "not integers"),
        ("weight", lambda v: v.fill_(-128).clone(), "an int8 weight of 128"),
    ],
)
def test_integers_of_any_shape_are_refused(
    tmp_path: Path, integers, part: str, change, sentence: str
) -> None:
    state, metadata = integers
    key = f"quantized.{LAYER}.{part}"
    changed = change(state[key].clone())
    state = {k: v for k, v in state.items() if k != key}
    if changed is not None:
        state[key] = changed
    assert sentence in refused(tmp_path / "q.safetensors", state, metadata)


def test_a_third_of_fused_integers_is_not_filled_with_zeros(tmp_path: Path, integers) -> None:
    state, metadata = integers
    name = "stages.0.blocks.0.dsa.k"
    facts = metadata["quantization"]
    scales = {key: value for key, value in facts["scales"].items() if key != name}
    facts = facts | {"scales": scales, "float_layers": facts["float_layers"] | {name: "x"}}
    state = {key: value for key, value in state.items() if f".{name}." not in key}
    said = refused(tmp_path / "q.safetensors", state, metadata | {"quantization": facts})
    assert "1 missing, first blocks.0.0.attn.DSA_qkv.weight" in said
