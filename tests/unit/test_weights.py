"""Checkpoints in and out."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from helpers import jittered
from safetensors.torch import save_file

from sepvit_edge import SepViTError, load_checkpoint, save_checkpoint
from sepvit_edge.checkpoints.labels import read_labels
from sepvit_edge.checkpoints.source import source_of, weights_digest
from sepvit_edge.model.variants import ModelConfig, Preprocessing


def wrap(state: dict[str, torch.Tensor], how: str) -> dict:
    if how == "model":
        return {"model": OrderedDict(state), "epoch": 3}
    if how == "module":
        return {"model": {f"module.{key}": value for key, value in state.items()}}
    return state


@pytest.mark.parametrize("how", ["bare", "model", "module"])
def test_the_authors_layouts_load(tmp_path: Path, how: str) -> None:
    model = jittered("lite", num_classes=7, image_size=224)
    torch.save(wrap(model.state_dict(), how), tmp_path / "theirs.pth")
    loaded = load_checkpoint(tmp_path / "theirs.pth")
    # no configuration: ImageNet's preprocessing, 224, classes named by number
    assert loaded.config == ModelConfig("lite", 7, 224, Preprocessing(0.875))
    assert loaded.config.labels == tuple("0123456")
    assert not loaded.training
    assert weights_digest(loaded) == weights_digest(model)


def test_safetensors_carry_the_configuration(tmp_path: Path) -> None:
    model = jittered("lite", image_size=96)
    path = tmp_path / "mine.safetensors"
    save_checkpoint(model, path, trained_on="digits/train")
    loaded = load_checkpoint(path)
    assert loaded.config == model.config
    assert loaded.source.trained_on == "digits/train"
    assert weights_digest(loaded) == weights_digest(model)
    other = load_checkpoint(path, image_size=64, labels=tuple("abcdefghij"))
    assert other.config.image_size == 64 and other.config.labels[1] == "b"
    save_file(model.state_dict(), path)  # without metadata: as the authors' are
    assert load_checkpoint(path).config.image_size == 224


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    model = jittered("lite")
    save_checkpoint(model, tmp_path / "half.safetensors", dtype=torch.float16)
    loaded = load_checkpoint(tmp_path / "half.safetensors")
    assert loaded.head.weight.dtype == torch.float32
    assert torch.equal(loaded.head.weight, model.head.weight.half().float())


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.pth").write_bytes(pickle.dumps(RunsCode(), protocol=2))
    torch.save({"model": RunsCode()}, "zip.pth")
    for name in ("evil.pth", "zip.pth"):
        with pytest.raises(SepViTError, match=r"was refused: it calls posix.system"):
            load_checkpoint(name)
    assert not Path("hacked").exists()


def altered(kind: str) -> tuple[dict, str]:
    state = jittered("lite").state_dict()
    if kind == "missing":
        del state["blocks.0.0.norm1.weight"]
        return state, "1 missing, first blocks.0.0.norm1.weight"
    if kind == "unexpected":
        return state | {"aux.weight": torch.zeros(1)}, "1 unexpected, first aux.weight"
    if kind == "misshapen":
        state["norm.weight"] = torch.zeros(5)
        return state, r"1 misshapen, first norm.weight \(5,\) instead of \(256,\)"
    if kind == "nan":
        state["norm.weight"][3] = float("nan")
        return state, "not finite, first in norm.weight"
    if kind == "other model":
        return {"conv1.weight": torch.zeros(3)}, r"not a SepViT classifier.*conv1.weight"
    if kind == "no tensors":
        return {"model": {"a": 1}}, "holds no state dict"
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind", ["missing", "unexpected", "misshapen", "nan", "other model", "no tensors"]
)
def test_a_checkpoint_that_does_not_fit_says_where(tmp_path: Path, kind: str) -> None:
    state, message = altered(kind)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(SepViTError, match=message):
        load_checkpoint(tmp_path / "bad.pth")


def test_other_variant_and_labels_are_refused(tmp_path: Path) -> None:
    save_checkpoint(jittered("lite"), path := tmp_path / "lite.safetensors")
    with pytest.raises(SepViTError, match="is a SepViT-Lite, not a SepViT-T"):
        load_checkpoint(path, variant="t")
    with pytest.raises(SepViTError, match="2 labels do not fit 10 classes"):
        load_checkpoint(path, labels=("a", "b"))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken zip"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_one_sentence(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(SepViTError) as refusal:
        load_checkpoint(path)
    assert "\n" not in str(refusal.value) and path.name in str(refusal.value)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    for name in ("cut.safetensors", "cut.pth"):
        path = tmp_path / name
        if name.endswith("pth"):
            torch.save(jittered("lite").state_dict(), path)
        else:
            save_checkpoint(jittered("lite"), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(SepViTError, match="not a readable checkpoint"):
            load_checkpoint(path)


def test_the_source_is_forgotten_when_the_weights_change(tmp_path: Path) -> None:
    save_checkpoint(jittered("lite"), path := tmp_path / "lite.safetensors")
    model = load_checkpoint(path)
    assert source_of(model).file_sha256 is not None
    with torch.no_grad():
        model.head.bias[0] += 1
    assert source_of(model).file_sha256 is None


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("tench\n goldfish \n\n", encoding="utf-8")
    assert read_labels(path) == ("tench", "goldfish")
    path.write_text("\n")
    with pytest.raises(SepViTError, match="is empty; write one label per line"):
        read_labels(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SepViTError, match="not UTF-8"):
        read_labels(path)
    with pytest.raises(SepViTError, match="cannot be read"):
        read_labels(tmp_path / "none.txt")
