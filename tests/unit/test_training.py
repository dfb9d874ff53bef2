"""Training: recipes, repeatable steps, wide variants from narrow ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import HANGS, MINI, Runner, jittered

from sepvit_edge.checkpoints.files import load_checkpoint
from sepvit_edge.data.digits import Digits
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.reference import set_image_size, with_config
from sepvit_edge.model.variants import ModelConfig
from sepvit_edge.training.recipe import (
    TrainingRecipe,
    load_training_recipe,
    parse_schedule,
    training_recipes,
)
from sepvit_edge.training.steps import StepPlan
from sepvit_edge.training.widen import widen


def test_shipped_recipes_are_valid() -> None:
    recipes = {name: load_training_recipe(name, {}) for name in training_recipes()}
    assert {"digits", "glyphs", "imagenet", "qat"} <= recipes.keys()
    published = recipes["imagenet"]
    assert (published.variant, published.epochs, published.drop_path) == ("t", 300, None)


def test_wrong_recipes_name_the_key(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[augmentation]\nmixupp = 1\n")
    with pytest.raises(SepViTError, match=r"augmentation\.mixupp is not a known key"):
        load_training_recipe(str(file), {})
    with pytest.raises(SepViTError, match="did you mean 'glyphs'"):
        load_training_recipe("glyph", {})
    with pytest.raises(SepViTError, match="100 is not a multiple of 32"):
        load_training_recipe("", {"resolution_schedule": ((100, 1.0),)})
    with pytest.raises(SepViTError, match="SIZE,SIZE"):
        parse_schedule("96;128")


def test_a_plan_shares_epochs_out_to_sizes() -> None:
    recipe = TrainingRecipe(
        epochs=6, batch=10, resolution_schedule=parse_schedule("96:3,160:2,224:1")
    )
    plan = StepPlan(recipe, images=105, world=2)
    assert (plan.steps_an_epoch, plan.steps) == (5, 30)
    sizes = [plan.image_size(step) for step in range(30)]
    assert sizes == [96] * 15 + [160] * 10 + [224] * 5


def test_the_image_size_changes_in_place() -> None:
    model = jittered("lite", image_size=64)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        expected = with_config(model, ModelConfig("lite", 10, 128))(x)
        set_image_size(model, 128)
        assert torch.equal(model(x), expected)


def test_a_wide_variant_starts_where_the_narrow_one_is() -> None:
    model = jittered("lite", image_size=64)
    wide = widen(model, "t")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, measured = model(x), wide(x)
    assert torch.allclose(expected, measured, atol=1e-4 * float(expected.abs().max()))
    first, second = wide.blocks[2][0].mlp.fc1.weight.chunk(3, 1)[:2]
    assert not torch.allclose(first, second)  # copies that differ can learn different things
    with pytest.raises(SepViTError, match="same depths"):
        widen(model, "s")


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


needs_training = pytest.mark.skipif(
    any(__import__("importlib").util.find_spec(m) is None for m in ("timm", "accelerate")),
    reason="needs the extra train",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 96 digits to train on, and one of 16 that are held out."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 96), ("test", 16)):
        digits = Digits(split)
        for i in range(count):
            sample = digits[i]
            folder = root / split / str(sample.label)
            folder.mkdir(parents=True, exist_ok=True)
            sample.image.save(folder / f"{i}.png")
    return root


def small(pictures: Path, **changes: object) -> TrainingRecipe:
    values = {
        "variant": MINI,
        "data": str(pictures / "train"),
        "validation": str(pictures / "test"),
        "epochs": 2,
        "batch": 16,
        "accumulate": 2,
        "resolution_schedule": ((32, 1.0),),
        "ema": 0.9,
        "drop_path": 0.2,
        "augmentation": {"randaugment": "rand-m4-n2", "mixup": 0.5, "erasing": 0.2},
    }
    return TrainingRecipe.model_validate(values | changes)


@needs_training
def test_a_killed_run_goes_on_with_the_same_curve(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sepvit_edge.training import trainer
    from sepvit_edge.training.checkpoint import train_checkpoint

    losses: dict[str, dict[int, float]] = {}

    def train(name: str, kill_at: int = 0, resume: bool = False) -> None:
        seen = losses.setdefault(name, {})

        def report(step: int, steps: int, loss: float) -> None:
            assert seen.get(step, loss) == loss  # a repeated step repeats its loss
            seen[step] = loss
            if step == kill_at:
                raise Killed

        run = tmp_path / f"run-{name}"
        output = tmp_path / f"{name}.safetensors"
        train_checkpoint(output, small(pictures), run, resume=resume, report=report)

    train("straight")
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)  # every update is saved
    with pytest.raises(Killed):
        train("killed", kill_at=4)
    with pytest.raises(SepViTError, match="--resume to continue"):
        train("killed")
    with pytest.raises(Killed):
        train("killed", kill_at=9, resume=True)
    train("killed", resume=True)
    assert losses["killed"] == losses["straight"] and len(losses["straight"]) == 12
    histories = [
        json.loads((tmp_path / f"run-{name}" / "history.json").read_text())
        for name in ("straight", "killed")
    ]
    assert histories[0] == histories[1]
    models = [load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("straight", "killed")]
    for (key, first), second in zip(
        models[0].state_dict().items(), models[1].state_dict().values(), strict=True
    ):
        assert torch.equal(first, second), key
    assert (tmp_path / "run-killed" / "curves.png").stat().st_size > 1000


@needs_training
def test_a_run_goes_on_as_it_began(tmp_path: Path, pictures: Path) -> None:
    from sepvit_edge.training.checkpoint import train_checkpoint

    run, output = tmp_path / "run", tmp_path / "x.safetensors"
    train_checkpoint(output, small(pictures, epochs=1), run)
    with pytest.raises(SepViTError, match="epochs = 1, not 2"):
        train_checkpoint(output, small(pictures), run, resume=True)
    with pytest.raises(SepViTError, match="no saved state"):
        train_checkpoint(output, small(pictures), tmp_path / "other", resume=True)


@needs_training
def test_two_processes_train_one_model(tmp_path: Path, pictures: Path) -> None:
    """As `accelerate launch` starts them: each takes its half of a step, and one of them writes."""
    (tmp_path / "r.toml").write_text(
        f'variant = "{MINI}"\ndata = "{pictures / "train"}"\nvalidation = "{pictures / "test"}"\n'
        "epochs = 1\nbatch = 16\nresolution_schedule = [[32, 1]]\n"
    )
    (tmp_path / "train.py").write_text("from sepvit_edge.train import main\nmain()\n")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = ["train.py", "--recipe", "r.toml", "--output", "t.safetensors", "--workers", "0"]
    done = subprocess.run(
        [*launch, *arguments],
        cwd=tmp_path,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("t.safetensors is written") == 1
    card = json.loads((tmp_path / "t.json").read_text())
    assert card["steps"] == 96 // (2 * 16)
    load_checkpoint(tmp_path / "t.safetensors")


@needs_training
def test_the_command_trains_and_quantises(tmp_path: Path, run_command: Runner) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'variant = "{MINI}"\ndata = "digits"\nepochs = 2\nbatch = 32\ncrop = 1.0\n'
        "resolution_schedule = [[32, 1]]\n"
        "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\nlearning_rate = 1e-3\n"
    )
    floats, integers = tmp_path / "f.safetensors", tmp_path / "q.safetensors"
    done = run_command(
        "train", "--recipe", recipe, "--output", floats, "--run", tmp_path / "a", "--workers", 0
    )
    assert done.status == 0, done.err
    card = json.loads(floats.with_suffix(".json").read_text())
    assert card["held_out_images"] == len(Digits("test")) and card["steps"] == 2 * 37
    assert card["held_out_top1"] > 0.5  # ten classes; a few steps are enough to be far above chance
    done = run_command(
        "train", "--qat", "--data", "digits", "--epochs", 1, "--steps", 8,
        "--resolution-schedule", 32, "--weights", floats, "--output", integers,
        "--run", tmp_path / "b", "--workers", 0,
    )  # fmt: skip
    assert done.status == 0, done.err
    quantised = json.loads(integers.with_suffix(".json").read_text())
    assert quantised["held_out_top1"] >= card["held_out_top1"] - 0.03
    assert quantised["held_out_top1_float"] == card["held_out_top1"]
    model = load_checkpoint(integers)
    assert model.quantization is not None and model.source.trained_on == "digits/train"
    scales = [layer.input_scale for layer in model.quantization.layers.values()]
    assert np.isfinite([scale for scale in scales if scale is not None]).all()


@needs_training
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "digits", "--qat"], "give --weights"),
        ([], "give the training data"),
        (["--data", "nowhere/at/all"], "there is no folder"),
        (["--data", "digits", "--batch", "5000"], "fewer than the batch"),
        (["--data", "digits", "--teacher", "no-such"], "no checkpoint"),
    ],
)
def test_wrong_usage_is_one_sentence(
    tmp_path: Path, run_command: Runner, arguments: list[str], sentence: str
) -> None:
    output = tmp_path / "x.safetensors"
    done = run_command("train", "--output", output, "--run", tmp_path / "run", *arguments)
    assert done.status == 2 and sentence in done.err and not output.exists()


def test_a_missing_library_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Path
) -> None:
    from sepvit_edge.charts import load_pyplot
    from sepvit_edge.training import checkpoint

    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    with pytest.raises(SepViTError, match=r"pip install 'sepvit-edge\[train\]'"):
        checkpoint.train_checkpoint(tmp_path / "x.safetensors", small(pictures), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SepViTError, match=r"pip install 'sepvit-edge\[charts\]'"):
        load_pyplot()
