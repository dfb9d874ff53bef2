"""Checkpoints of dense models: files of MMSegmentation and MMDetection, and our own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import MINI

import sepvit_edge
from sepvit_edge.checkpoints.builtin import default_dense_checkpoint
from sepvit_edge.checkpoints.choose import choose_dense
from sepvit_edge.checkpoints.files import load_checkpoint
from sepvit_edge.data.dense.scenes import Scenes, scene_labels
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.dense import DenseModel
from sepvit_edge.training.dense.figure import validation_figure

TASKS = {
    "semantic-fpn": "segmentation",
    "upernet": "segmentation",
    "retinanet": "detection",
    "mask-rcnn": "detection",
}


def small(head: str, variant: str = "lite", classes: int = 3) -> DenseModel:
    torch.manual_seed(0)
    model = sepvit_edge.create_model(
        variant, classes, task=TASKS[head], head=head, input_size=(64, 96), channels=8
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked += 7
    return model.eval()


def same_answers(a: DenseModel, b: DenseModel) -> bool:
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found, wanted = a(x), b(x)
    pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
    return all(torch.allclose(f, w, atol=1e-5) for f, w in pairs)


@pytest.mark.parametrize("head", TASKS)
def test_a_file_of_mm_is_read_by_its_keys(head: str, tmp_path: Path) -> None:
    model = small(head)
    unused = {
        f"{name}.weight": torch.ones(2)
        for name in ("backbone.norm", "backbone.head", "auxiliary_head.convs.0.conv")
    }
    file = tmp_path / "epoch_12.pth"
    torch.save({"meta": {"epoch": 12}, "state_dict": model.state_dict() | unused}, file)
    read = sepvit_edge.load_checkpoint(file, task=TASKS[head], input_size=(64, 96))
    assert (read.config.head, read.config.variant, read.config.channels) == (head, "lite", 8)
    assert read.config.num_classes == 3 and not read.training
    assert same_answers(read, model)
    weights = dict(read.named_parameters())
    assert all(torch.equal(x, weights[key]) for key, x in model.named_parameters())
    module = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": module}, file)
    assert same_answers(sepvit_edge.load_checkpoint(file, task=None), model)


def test_our_own_file_holds_the_configuration(tmp_path: Path) -> None:
    model = sepvit_edge.create_model(
        MINI,
        task="segmentation",
        head="upernet",
        num_classes=2,
        input_size=(128, 256),
        window="fit",
        channels=6,
        labels=("ground", "digit"),
    ).eval()
    file = tmp_path / "digits.safetensors"
    sepvit_edge.save_checkpoint(model, file, trained_on="scenes/train")
    read = sepvit_edge.load_checkpoint(file, task="segmentation")
    assert read.config == model.config and read.config.window_side == 4
    assert read.source.trained_on == "scenes/train"
    assert same_answers(read, model)
    other = sepvit_edge.load_checkpoint(
        file, task="segmentation", input_size=(64, 96), window="paper", labels=("a", "b")
    )
    assert (other.config.input_size, other.config.labels) == ((64, 96), ("a", "b"))
    assert other.source.weights_sha256 == read.source.weights_sha256


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "not a classifier; name its task"),
        ({"task": "detection"}, "is a Semantic FPN, for segmentation, not for detection"),
        ({"task": "segmentation", "head": "upernet"}, "is a Semantic FPN, not a UperNet"),
        ({"task": "segmentation", "head": "fcn"}, "'fcn' is not one of segmentation"),
        ({"task": "segmentation", "variant": "t"}, "on SepViT-Lite, not on SepViT-T"),
        ({"task": "segmentation", "labels": ("a",)}, "1 labels do not fit 3 classes"),
        ({"task": "pose"}, "unknown task 'pose'"),
    ],
)
def test_another_model_than_was_asked_for_is_named(
    options: dict, sentence: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": small("semantic-fpn").state_dict()}, tmp_path / "a.pth")
    with pytest.raises(SepViTError, match=sentence):
        sepvit_edge.load_checkpoint(tmp_path / "a.pth", **options)


def test_the_built_in_weights_of_a_head_are_the_default() -> None:
    model = choose_dense("", "", "", "segmentation")
    config = model.config
    assert (config.head, config.variant, config.input_size) == ("semantic-fpn", "lite", (128, 128))
    assert config.labels == scene_labels("segmentation")
    assert model.source is not None and model.source.trained_on == "scenes/train"
    with pytest.raises(SepViTError, match="no weights ship for upernet"):
        choose_dense("", "", "", "segmentation", "upernet")


@pytest.mark.parametrize("head", ["semantic-fpn", "retinanet"])
def test_the_built_in_weights_know_scenes(head: str) -> None:
    """Untrained ones leave 15 % of mean IoU, the ground alone, and no AP50."""
    model = load_checkpoint(default_dense_checkpoint("", head), task=None)
    data = Scenes("test", model.config.task, 12)
    assert validation_figure(model.eval(), data) > 0.6


def test_a_classifier_is_no_dense_model() -> None:
    with pytest.raises(SepViTError, match="is a classifier, not a model for segmentation"):
        sepvit_edge.load_checkpoint("lite-digits", task="segmentation")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"drop": "decode_head", "add": "roi_head.bbox_head.fc"}, "is another two-stage detector"),
        ({"drop": "decode_head", "add": "decode_head.linear_pred"}, "another segmentation head"),
        ({"drop": "decode_head"}, "a dense backbone without a head; supported heads: semantic-fpn"),
        ({"drop": "neck.fpn_convs.2.conv.bias"}, "1 missing, first neck.fpn_convs.2.conv.bias"),
        ({"add": "decode_head.extra"}, "1 unexpected, first decode_head.extra"),
        ({"drop": "backbone.blocks"}, "fit no variant"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change: dict, sentence: str, tmp_path: Path) -> None:
    state = {
        key: value
        for key, value in small("semantic-fpn").state_dict().items()
        if not key.startswith(change.get("drop", "-"))
    }
    if "add" in change:
        state[change["add"]] = torch.ones(2)
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(SepViTError, match=sentence):
        sepvit_edge.load_checkpoint(tmp_path / "a.pth", task="segmentation")
