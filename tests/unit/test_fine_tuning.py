"""Fine-tuning on a user's own folder: new classes, splits, the best weights, what is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MINI, Runner, jittered, mini_digits
from PIL import Image

from sepvit_edge.checkpoints.files import load_checkpoint, save_checkpoint
from sepvit_edge.data.split import is_held_out
from sepvit_edge.errors import SepViTError
from sepvit_edge.training.recipe import TrainingRecipe, load_training_recipe
from sepvit_edge.training.state import Epoch, best_epoch
from sepvit_edge.training.steps import StepPlan

pytest.importorskip("timm")
pytest.importorskip("accelerate")

COLOURS = {"amber": (240, 170, 0), "blue": (20, 40, 230), "green": (10, 190, 40)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest trained model: ten digits at 64 pixels."""
    path = tmp_path_factory.mktemp("weights") / "mini.safetensors"
    save_checkpoint(mini_digits(), path)
    return path


def paint(folder: Path, each: int, seed: int = 0) -> Path:
    """Write noisy pictures of three colours, a folder per colour."""
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            noise = random.integers(-15, 16, (32, 32, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def recipe(data: Path, **changes: Any) -> TrainingRecipe:
    values = {
        "data": str(data),
        "batch": 8,
        "epochs": 2,
        "least_steps": 0,
        "resolution_schedule": ((32, 1.0),),
        "augmentation": {},
    }
    return load_training_recipe("fine-tune", values | changes)


def test_the_command_fine_tunes_to_own_classes(
    tmp_path: Path, weights: Path, run_command: Runner
) -> None:
    data, output, run = paint(tmp_path / "data", 20), tmp_path / "o.safetensors", tmp_path / "run"
    done = run_command(
        "train", "--weights", weights, "--data", data, "--output", output, "--run", run,
        "--resolution-schedule", 32, "--batch", 8, "--epochs", 6, "--workers", 0, "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "3 classes" in done.err and "amber" in done.err and "classifier starts anew" in done.err
    card = json.loads(done.out)
    assert card == json.loads(output.with_suffix(".json").read_text())
    model = load_checkpoint(output)
    assert model.config.labels == tuple(COLOURS)
    # Colours that lie far apart; digits' weights saw grey only, chance is a third.
    assert card["held_out_top1"] > 0.9
    held = sum(is_held_out(path, 0.2, "validation") for path in data.glob("*/*"))
    assert card["held_out_images"] == held == sum(c["images"] for c in card["accuracy"]["classes"])
    for picture in ("augmented.png", "confusion.png", "curves.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 100


def test_the_split_depends_on_content_alone(tmp_path: Path) -> None:
    data = paint(tmp_path / "data", 40)
    files = sorted(data.glob("*/*"))
    held = {path.read_bytes() for path in files if is_held_out(path, 0.25)}
    assert 0.1 < len(held) / len(files) < 0.4
    left = [path for path in files if not is_held_out(path, 0.25)]
    assert 0.1 < sum(is_held_out(path, 0.25, "again") for path in left) / len(left) < 0.4
    for path in files:
        path.rename(path.with_name(f"renamed {path.name}"))
    again = {path.read_bytes() for path in data.glob("*/*") if is_held_out(path, 0.25)}
    assert again == held


def test_own_splits_of_a_folder_are_used(tmp_path: Path, weights: Path) -> None:
    from sepvit_edge.training.checkpoint import train_checkpoint

    root = tmp_path / "root"
    for split, each in (("train", 8), ("val", 3), ("test", 2)):
        paint(root / split, each, seed=each)
    said: list[str] = []
    output = tmp_path / "o.safetensors"
    trained = train_checkpoint(
        output, recipe(root, epochs=1), tmp_path / "run", weights=str(weights), say=said.append
    )
    assert load_checkpoint(output).config.labels == tuple(COLOURS)
    assert trained.accuracy is not None and trained.accuracy.images == 6  # of test/
    assert trained.card["held_out_chose_epoch"] is False
    assert any("9 images for validation, 6 for the test" in line for line in said), said


def test_the_same_classes_keep_the_classifier(tmp_path: Path, weights: Path) -> None:
    from sepvit_edge.training.start import starting_model

    labels = load_checkpoint(weights).config.labels
    shuffled = tuple(reversed(labels))
    start = load_training_recipe("fine-tune", {"data": "x"})
    kept, _ = starting_model(start, str(weights), "", shuffled, False, lambda text: None)
    assert kept.config.labels == labels
    assert torch.equal(kept.head.weight, load_checkpoint(weights).head.weight)
    new, _ = starting_model(start, str(weights), "", labels[:7], False, lambda text: None)
    assert new.config.labels == labels[:7] and new.head.weight.shape[0] == 7
    assert torch.equal(new.norm.weight, kept.norm.weight)


def test_only_what_the_recipe_trains_changes(tmp_path: Path, weights: Path) -> None:
    from sepvit_edge.training.checkpoint import train_checkpoint

    data, before = paint(tmp_path / "data", 8), load_checkpoint(weights).state_dict()
    # Half of the run is the head's own, the other half starts at stage 3.
    for name, changes, fixed in (
        (
            "frozen",
            {"freeze_until": "stage3", "head_warmup": 0.0},
            ("s.0.", "s.1.", "k.0.", "k.1."),
        ),
        ("head", {"head_warmup": 0.99}, ("blocks", "patch_embeds", "pos_block", "norm")),
    ):
        chosen = recipe(data, epochs=1, patience=0, weight_decay=0.0, **changes)
        output = tmp_path / f"{name}.safetensors"
        train_checkpoint(output, chosen, tmp_path / name, weights=str(weights))
        after = load_checkpoint(output).state_dict()
        changed = {
            key
            for key in after
            if not key.startswith("head") and not torch.equal(before[key], after[key])
        }
        assert not [key for key in changed if any(part in key for part in fixed)], changed
        assert bool(changed) is (name == "frozen")


def test_layers_learn_more_slowly_towards_the_input() -> None:
    from sepvit_edge.training.loop import FloatTrainee
    from sepvit_edge.training.optimizer import create_optimizer, create_schedule

    trainee = FloatTrainee(mini_digits())
    chosen = TrainingRecipe(layer_decay=0.5, learning_rate=1e-3, warmup_epochs=0, weight_decay=0.1)
    optimizer = create_optimizer(trainee, chosen)
    create_schedule(optimizer, StepPlan(chosen, 640, 1)).step_update(0)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    named = {name: rates[id(parameter)] for name, parameter in trainee.named_parameters()}
    assert len(named) == len(rates)
    # One block a stage: the head, stages 4, 3, 2, 1.
    assert named["model.head.weight"] == pytest.approx((1e-3, 0.1))
    assert named["model.head.bias"] == pytest.approx((1e-3, 0.0))
    assert named["model.blocks.3.0.mlp.fc1.weight"] == pytest.approx((5e-4, 0.1))
    assert named["model.pos_block.1.proj.0.bias"] == pytest.approx((1.25e-4, 0.0))
    assert named["model.patch_embeds.0.proj.weight"] == pytest.approx((6.25e-5, 0.1))


def test_the_best_epoch_is_one_of_the_last_size() -> None:
    def line(epoch: int, size: int, top1: float | None) -> Epoch:
        return Epoch(epoch, epoch, size, 1e-3, 1.0, top1)

    history = [line(1, 32, 0.9), line(2, 64, 0.5), line(3, 64, 0.7), line(4, 64, 0.7)]
    assert best_epoch(history) is history[2]
    assert best_epoch([line(1, 32, None)]) is None and best_epoch([]) is None


def test_the_best_weights_are_written_and_a_run_that_is_stuck_ends(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sepvit_edge.training import loop, trainer
    from sepvit_edge.training.checkpoint import train_checkpoint

    curve = iter([0.3, 0.8, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4])
    monkeypatch.setattr(loop, "evaluate_top1", lambda *rest: next(curve))
    kept: dict[int, torch.Tensor] = {}
    save = trainer.save_best

    def saved(run: Path, result: torch.nn.Module) -> None:
        save(run, result)
        kept[len(kept)] = result.state_dict()["model.norm.weight"].clone()

    monkeypatch.setattr(trainer, "save_best", saved)
    data, output = paint(tmp_path / "data", 8), tmp_path / "o.safetensors"
    trained = train_checkpoint(
        output, recipe(data, epochs=8, patience=0.25), tmp_path / "run", weights=str(weights)
    )
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [line["validation_top1"] for line in history] == [0.3, 0.8, 0.5, 0.4]
    assert trained.card["best_epoch"] == 2
    assert torch.equal(load_checkpoint(output).norm.weight, kept[1])


def test_small_sets_are_passed_more_often() -> None:
    chosen = TrainingRecipe(epochs=3, least_steps=100, batch=8)
    assert StepPlan(chosen, 64, 1).steps == 13 * 8  # whole epochs
    assert StepPlan(chosen, 800, 1).steps == 3 * 100


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"validation_split": 1e-9}, "one side empty"),
        ({"validation": "nowhere/at/all"}, "no folder"),
        ({"batch": 500}, "fewer than the batch"),
    ],
)
def test_bad_data_is_refused(
    tmp_path: Path, weights: Path, changes: dict[str, Any], sentence: str
) -> None:
    from sepvit_edge.training.checkpoint import train_checkpoint

    data, output = paint(tmp_path / "data", 4), tmp_path / "o.safetensors"
    with pytest.raises(SepViTError, match=sentence):
        train_checkpoint(output, recipe(data, **changes), tmp_path / "run", weights=str(weights))
    assert not output.exists()


def test_uneven_classes_are_said(
    tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sepvit_edge.training.sets import open_sets

    data = paint(tmp_path / "data", 12)
    for path in sorted((data / "blue").iterdir())[2:]:
        path.unlink()
    said: list[str] = []
    open_sets(recipe(data, validation_split=0.0), tuple(COLOURS), said.append)
    assert said == ["3 classes, 26 images to train on: amber 12, blue 2, green 12"]
    assert "largest class has 12 images and the smallest 2" in caplog.text


def test_a_photograph_teacher_teaches_logits_and_features() -> None:
    """EfficientNet-Lite0's class, with random weights: what it answers, and how images reach it."""
    import timm

    from sepvit_edge.model.variants import ModelConfig, Preprocessing
    from sepvit_edge.training.loop import FloatTrainee
    from sepvit_edge.training.teachers import EfficientNetTeacher

    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    with torch.no_grad():
        expected = network((pixels - 127) / 128)
    teacher = EfficientNetTeacher(network, tuple(COLOURS))
    rule = Preprocessing(0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    teacher.meet(ModelConfig(MINI, 3, 64, rule, tuple(COLOURS)))
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (rule.mean, rule.std))
    answer = teacher((pixels / 255 - mean) / std)
    assert torch.allclose(answer.logits, expected, atol=1e-4 * float(expected.abs().max()))
    shapes = [tuple(feature.shape) for feature in answer.features]
    assert shapes == [(2, 24, 16, 16), (2, 40, 8, 8), (2, 112, 4, 4), (2, 320, 2, 2)]
    trainee = FloatTrainee(jittered(MINI, 3, 64), teacher.channels).eval()
    logits, guesses = trainee(pixels / 255, features=True)
    assert [tuple(guess.shape) for guess in guesses] == shapes
    assert torch.allclose(logits, trainee(pixels / 255), atol=1e-5)
    with pytest.raises(SepViTError, match="class 0 is 'amber' there and 'cat' here"):
        teacher.meet(ModelConfig(MINI, 3, 64, rule, ("cat", "blue", "green")))
