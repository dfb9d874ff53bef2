"""Training of dense models: losses against torchvision, variations, and a short run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MINI, jittered
from PIL import Image

from sepvit_edge.checkpoints.files import save_checkpoint
from sepvit_edge.data.dense.sample import IGNORED, Objects
from sepvit_edge.errors import SepViTError
from sepvit_edge.package.postprocessing import DetectionRule
from sepvit_edge.postprocess.detection import anchors, decode
from sepvit_edge.training.dense.images import Placing
from sepvit_edge.training.dense.losses import AnchorLoss, assign, encode, focal_loss, pixel_loss
from sepvit_edge.training.recipe import (
    TrainingRecipe,
    check_dense_options,
    load_training_recipe,
)


def corners(size: tuple[int, int]) -> torch.Tensor:
    places = torch.from_numpy(anchors(DetectionRule(), size)).float()
    return torch.cat([places[:, :2] - places[:, 2:] / 2, places[:, :2] + places[:, 2:] / 2], 1)


def test_the_focal_loss_is_that_of_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops", reason="needs [train]")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator) * 3
    truth = (torch.rand(50, 4, generator=generator) < 0.2).float()
    expected = ops.sigmoid_focal_loss(logits, truth, 0.25, 2.0, "sum")
    assert torch.allclose(focal_loss(logits, truth), expected, rtol=1e-5)


def test_anchors_are_assigned_as_torchvision_assigns_them() -> None:
    """Where boxes are apart, its matcher and MMDetection's agree."""
    utils = pytest.importorskip("torchvision.models.detection._utils", reason="needs [train]")
    ops = pytest.importorskip("torchvision.ops")
    places = corners((128, 160))
    boxes = torch.tensor([[3.0, 5, 40, 50], [60, 20, 110, 60], [130, 90, 141, 101]])
    matcher = utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
    expected = matcher(ops.box_iou(boxes, places))
    assert torch.equal(assign(places, boxes), expected)
    counts = expected.bincount(minlength=3) if (expected >= 0).all() else None
    assert counts is None and {-2, -1, 0, 1, 2} == set(expected.tolist())


def test_without_boxes_all_anchors_are_background() -> None:
    assert (assign(corners((64, 64)), torch.zeros(0, 4)) == -1).all()


def test_what_is_encoded_is_decoded() -> None:
    places = torch.from_numpy(anchors(DetectionRule(), (64, 64))[:50]).float()
    generator = torch.Generator().manual_seed(1)
    start = torch.rand(50, 2, generator=generator) * 40
    boxes = torch.cat([start, start + 4 + 30 * torch.rand(50, 2, generator=generator)], 1)
    deltas = encode(places, boxes).numpy()
    found = decode(places.double().numpy(), deltas, DetectionRule().size_delta_limit)
    assert np.abs(found - boxes.numpy()).max() < 1e-4


def test_the_anchor_loss_falls_to_zero_at_the_truth() -> None:
    loss = AnchorLoss(DetectionRule(), (64, 64))
    boxes, classes = torch.tensor([[10.0, 12, 44, 46]]), torch.tensor([1])
    owner = assign(corners((64, 64)), boxes)
    logits = torch.full((1, len(owner), 2), -20.0)
    deltas = torch.zeros(1, len(owner), 4)
    places = torch.from_numpy(anchors(DetectionRule(), (64, 64))).float()
    deltas[0, owner == 0] = encode(places[owner == 0], boxes.expand(int((owner == 0).sum()), 4))
    logits[0, owner == 0, 1] = 20
    right = loss((logits, deltas), [(boxes, classes)])
    assert right < 1e-6
    assert loss((-logits, deltas), [(boxes, classes)]) > 10
    assert loss((logits, deltas + 1), [(boxes, classes)]) == pytest.approx(4, rel=1e-3)
    nothing = loss((logits * 0 - 20, deltas), [(torch.zeros(0, 4), torch.zeros(0, dtype=int))])
    assert nothing < 1e-6


def test_pixels_without_a_class_cost_nothing() -> None:
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    mask = torch.full((1, 8, 8), IGNORED, dtype=torch.uint8)
    assert pixel_loss(logits, mask) == 0
    mask[0, 0, 0] = 1
    assert pixel_loss(logits, mask).item() == pytest.approx(np.log(2))


def recipe(**dense: object) -> TrainingRecipe:
    return TrainingRecipe(task="detection", dense={"input_size": (64, 96), **dense})


def test_image_mask_and_boxes_are_varied_alike() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[10:30, 20:60] = 255
    mask = (image[..., 0] > 0).astype(np.uint8)
    objects = Objects.of([[20, 10, 60, 30], [0, 0, 80, 40]], [1, 0], [False, True])
    seen = set()
    for seed in range(40):
        varied = recipe(zoom=(0.5, 1.5))
        varied = varied.model_copy(
            update={"augmentation": varied.augmentation.model_copy(update={"flip": 0.5})}
        )
        place = Placing.draw(np.random.default_rng(seed), (40, 80), varied)
        seen.add(place.mirrored)
        pixels, masked = place.image(Image.fromarray(image), (0.5, 0.5, 0.5)), place.mask(mask)
        assert pixels.shape == (64, 96, 3) and masked.shape == (64, 96)
        bright = pixels[..., 0] > 200
        assert (bright & (masked != 1)).sum() <= 0.1 * bright.sum() + 1
        boxes, classes = place.boxes(objects)
        if len(boxes):
            assert classes.tolist() == [1]
            left, top, right, bottom = boxes[0].round().astype(int)
            rows, columns = np.nonzero(masked == 1)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(found) - [left, top, right, bottom]).max() <= 2
    assert seen == {False, True}


def test_without_variation_an_image_stands_as_in_evaluation() -> None:
    from sepvit_edge.data.preprocess import fit_image

    image = np.random.default_rng(0).integers(0, 256, (50, 61, 3)).astype(np.uint8)
    place = Placing.draw(np.random.default_rng(0), (50, 61), recipe())
    pixels, fit = fit_image(image, (0.485, 0.456, 0.406), (64, 96))
    assert np.array_equal(place.image(Image.fromarray(image), (0.485, 0.456, 0.406)), pixels)
    boxes, _ = place.boxes(Objects.of([[1, 2, 30, 40]], [0]))
    assert boxes == pytest.approx(fit.boxes_in(np.array([[1, 2, 30, 40]])))


def test_tables_of_recipes() -> None:
    changed = load_training_recipe("scenes-detection", {"dense": {"input_size": (64, 64)}})
    assert changed.dense.channels == 64 and changed.dense.input_size == (64, 64)
    with pytest.raises(SepViTError, match=r"dense\.head is for segmentation and detection"):
        load_training_recipe("", {"dense": {"head": "upernet"}})


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A recipe of a few steps of the smallest model."""
    file = tmp_path / "small.toml"
    file.write_text(
        f'variant = "{MINI}"\ndata = "scenes"\nsteps = 3\nbatch = 2\nprecision = "fp32"\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\ndrop_path = 0.0\nema = 0.9\n"
        "[dense]\nchannels = 8\ninput_size = [64, 64]\nwindow = 'paper'\n"
    )
    return file


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    from sepvit_edge.data.dense import scenes

    monkeypatch.setattr(scenes, "SIZES", {"train": 4, "calibration": 2, "test": 3})


@pytest.mark.parametrize(
    ("task", "figure"), [("segmentation", "held_out_miou"), ("detection", "held_out_ap50")]
)
def test_a_run_is_trained_resumed_and_saved(
    task: str, figure: str, tmp_path: Path, small: Path, run_command, few_scenes: None
) -> None:
    pytest.importorskip("accelerate", reason="needs [train]")
    pytest.importorskip("faster_coco_eval", reason="needs [dense]")
    start = tmp_path / "start.safetensors"
    classifier = jittered(MINI, image_size=64)
    save_checkpoint(classifier, start)
    output = tmp_path / "model.safetensors"
    common = ("--recipe", small, "--task", task, "--weights", start, "--output", output)
    done = run_command("train", *common, "--run", tmp_path / "run", "--json", "--workers", 0)
    assert done.status == 0, done.err
    card = json.loads(done.out)
    assert card[figure] is not None and card["steps"] == 3 and card["image_size"] == [64, 64]
    assert "the backbone starts from a classifier's weights" in done.err
    assert output.is_file() and json.loads(output.with_suffix(".json").read_text()) == card
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [line["step"] for line in history] == [2, 3]
    # A finished run that is resumed gives the same weights again.
    before = output.read_bytes()
    again = run_command("train", *common, "--run", tmp_path / "run", "--resume", "--workers", 0)
    assert again.status == 0 and output.read_bytes() == before
    refused = run_command("train", *common, "--run", tmp_path / "run")
    assert refused.status == 2 and "holds a run already" in refused.err


def test_a_run_stops_when_the_figure_does_not_improve(
    tmp_path: Path, small: Path, run_command, few_scenes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate", reason="needs [train]")
    from sepvit_edge.training.dense import loop

    figures = iter([0.2, 0.6, 0.6])
    monkeypatch.setattr(loop, "validation_figure", lambda model, data: next(figures))
    small.write_text(small.read_text().replace("steps = 3", "steps = 10\npatience = 0.2"))
    done = run_command(
        "train", "--recipe", small, "--task", "segmentation", "--workers", 0,
        "--output", tmp_path / "x.safetensors", "--run", tmp_path / "run", "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    # Five epochs of two steps; one of them passed since the best one.
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [line["validation_miou"] for line in history] == [0.2, 0.6, 0.6]
    assert json.loads(done.out)["best_epoch"] == 2


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("crop", {"crop": 0.5}),
        ("label_smoothing", {"label_smoothing": 0.0}),
        ("resolution_schedule", {"resolution_schedule": [(96, 1)]}),
        ("head_warmup", {"head_warmup": 0.1}),
        ("augmentation.crop_scale", {"augmentation": {"crop_scale": (0.5, 1)}}),
        ("augmentation.mixup", {"augmentation": {"mixup": 0.2, "flip": 0.5}}),
    ],
)
def test_keys_of_classifiers_are_refused(key: str, changes: dict) -> None:
    chosen = TrainingRecipe(task="segmentation", data="scenes", **changes)
    with pytest.raises(SepViTError, match=f"^{re.escape(key)} is for classification"):
        check_dense_options(chosen, "", "", ())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--qat", "--weights", "lite-digits"),
            "train segmentation in float, and let export calibrate",
        ),
        (("--teacher", "lite-digits"), "distillation|--teacher is for classification"),
        (("--resolution-schedule", "64"), "--resolution-schedule is for classification"),
        (("--head", "retinanet"), "retinanet is for detection"),
        (("--input-size", "100x64"), "not of multiples of 32"),
        (("--data", "nothing/here"), "there is no file or folder"),
        (("--input-size", "64x"), "HEIGHTxWIDTH in pixels"),
        (("--validation-split", "0.2"), "validation_split is for classification"),
    ],
)
def test_what_does_not_go_with_segmentation_is_refused(
    arguments: tuple, says: str, tmp_path: Path, small: Path, run_command, few_scenes: None
) -> None:
    pytest.importorskip("accelerate", reason="needs [train]")
    common = ("--recipe", small, "--task", "segmentation", "--output", tmp_path / "x.safetensors")
    done = run_command("train", *common, "--run", tmp_path / "run", *arguments)
    assert done.status == 2
    assert re.search(says, done.err), done.err
    assert not (tmp_path / "run").exists() and not (tmp_path / "x.safetensors").exists()
