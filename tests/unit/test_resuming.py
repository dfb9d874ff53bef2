"""Resuming a training run, and errors inside the processes that load its images."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import MINI, Runner
from torch import nn

from sepvit_edge.data.digits import Digits
from sepvit_edge.errors import SepViTError
from sepvit_edge.training.recipe import TrainingRecipe
from sepvit_edge.training.state import (
    Epoch,
    Progress,
    Setting,
    load_best,
    restore_state,
    save_best,
    save_state,
)

OPTIONS = ("--batch", 4, "--resolution-schedule", 32, "--variant", MINI)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders of four digits."""
    root = tmp_path_factory.mktemp("pictures") / "tree"
    digits, count = Digits("train"), {0: 0, 1: 0, 2: 0}
    for i in range(len(digits)):
        sample = digits[i]
        if count.get(sample.label, 4) < 4:
            path = root / "abc"[sample.label] / f"{count[sample.label]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            sample.image.save(path)
            count[sample.label] += 1
    return root


needs_training = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("timm", "accelerate")), reason="needs the extra train"
)
RECIPE = TrainingRecipe(data="pets", batch=4)
SETTING = Setting(("a", "b", "c"), 12, 1, "none", "")


def parts(seed: int) -> tuple[nn.Module, torch.optim.AdamW]:
    """A small model and its optimizer, one step after its start."""
    torch.manual_seed(seed)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose state is saved after its second step."""
    model, optimizer = parts(0)
    line = Epoch(1, 2, 32, 1e-3, 1.5, None)
    save_state(tmp_path, RECIPE, SETTING, Progress(2, 0.5, 7.0, [line]), model, None, optimizer)
    return tmp_path


def restored(run: Path) -> Progress:
    return restore_state(run, RECIPE, SETTING, parts(1)[0], None, parts(1)[1])


def test_a_state_comes_back_as_it_was_saved(run: Path) -> None:
    model, optimizer = parts(1)
    progress = restore_state(run, RECIPE, SETTING, model, None, optimizer)
    assert progress == Progress(2, 0.5, 7.0, [Epoch(1, 2, 32, 1e-3, 1.5, None)])
    assert torch.equal(model.weight, parts(0)[0].weight)
    moments = (o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, parts(0)[1]))
    assert torch.equal(*moments)
    assert sorted(p.name for p in run.iterdir()) == ["history.json", "state.pt"]


def test_a_state_without_a_setting_is_of_an_earlier_version(run: Path) -> None:
    state = torch.load(run / "state.pt", weights_only=True)
    del state["setting"]
    torch.save(state, run / "state.pt")
    assert restored(run).step == 2


def test_a_save_that_fails_leaves_the_old_state(run: Path, monkeypatch) -> None:
    before = (run / "state.pt").read_bytes()

    def full(state: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_state(run, RECIPE, SETTING, Progress(), *parts(0)[:1], None, parts(0)[1])
    assert (run / "state.pt").read_bytes() == before
    assert sorted(p.name for p in run.iterdir()) == ["history.json", "state.pt"]


Change = Callable[[Path], object]


def cut(share: float) -> Change:
    return lambda file: os.truncate(file, int(share * file.stat().st_size))


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    place = content.index(parts(0)[0].weight.detach().numpy().tobytes())
    content[place] ^= 1
    file.write_bytes(content)


def holding(content: object) -> Change:
    return lambda file: torch.save(content, file)


def with_values(**values: Any) -> Change:
    return lambda file: torch.save(torch.load(file, weights_only=True) | values, file)


def with_recipe(**values: Any) -> Change:
    recipe = json.loads(RECIPE.model_dump_json()) | values
    return with_values(recipe=json.dumps(recipe))


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "change",
    [
        *map(cut, (0, 0.01, 0.1, 0.5, 0.9, 0.99)),
        flipped,
        as_folder,
        lambda file: file.write_text("text"),
        lambda file: file.write_bytes(pickle.dumps({"recipe": Path("x")})),
        holding({"a": torch.zeros(2)}),
        holding([]),
        with_values(model=None),
        with_values(model={"weight": 3, "bias": 4}),
        with_values(optimizer={}),
        with_values(optimizer=[]),
        with_values(optimizer={"state": {}, "param_groups": []}),
        with_values(history=[{"epoch": 1}]),
        with_values(history=5),
        with_values(step=None),
        with_values(step=-1),
        with_values(setting=3),
        with_values(setting={"classes": 3}),
    ],
)
def test_a_damaged_state_is_one_sentence(run: Path, change: Change) -> None:
    change(run / "state.pt")
    with pytest.raises(SepViTError, match=r"state\.pt is (damaged \(|not the|a folder)") as refusal:
        restored(run)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [cut(0.5), holding([]), holding({"weight": torch.zeros(2, 2)}), lambda f: f.unlink()],
)
def test_damaged_best_weights_are_one_sentence(run: Path, change: Change) -> None:
    save_best(run, parts(0)[0])
    model = parts(1)[0]
    load_best(run, model)
    assert torch.equal(model.weight, parts(0)[0].weight)
    change(run / "best.pt")
    with pytest.raises(SepViTError, match=r"best\.pt") as refusal:
        load_best(run, model)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_recipe(warmth=3), "another version of sepvit-edge: its recipe has warmth is not"),
        (with_values(recipe=7), "another version of sepvit-edge"),
        (with_recipe(seed=9), "started with seed = 9, not 0"),
        (with_values(setting={"classes": ["a", "b"]}), "started with classes = 2, not 3"),
        (with_values(setting={"classes": ["a", "x", "c"]}), "started with classes = x, not b"),
        (with_values(setting={"images": 96}), "started with images = 96, not 12"),
        (with_values(setting={"devices": 2}), "started with devices = 2, not 1"),
        (with_values(setting={"rounding": "--qat"}), "started with rounding = --qat, not none"),
        (with_values(setting={"teacher_sha256": "12ab"}), "teacher_sha256 = 12ab, not none"),
        (
            with_values(model={"weight": torch.zeros(4, 4), "bias": torch.zeros(4)}),
            r"another model \(weight: \(4, 4\)\), not \(3, 4\)",
        ),
        (
            with_values(model={"weight": torch.zeros(3, 4)}),
            r"another model \(bias: no such tensor\), not \(3,\)",
        ),
    ],
)
def test_a_state_of_another_run_says_what_differs(run: Path, change: Change, sentence: str) -> None:
    change(run / "state.pt")
    with pytest.raises(SepViTError, match=sentence) as refusal:
        restored(run)
    assert "\n" not in str(refusal.value)


@needs_training
def test_a_run_is_not_resumed_with_another_class_or_rounding(
    tmp_path: Path, pictures: Path, run_command: Runner
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(pictures, tree)
    output = tmp_path / "o.safetensors"
    arguments = ("train", "--data", tree, *OPTIONS, "--run", tmp_path / "run", "--output", output)
    assert run_command(*arguments, "--epochs", 1, "--workers", 0).status == 0
    arguments += ("--epochs", 1, "--workers", 0, "--resume")
    assert run_command(*arguments).status == 0
    done = run_command(*arguments, "--qat", "--weights", output, "--recipe", "digits")
    assert done.status == 2 and "started with" in done.err, done.err
    shutil.copytree(tree / "c", tree / "d")
    done = run_command(*arguments)
    assert done.status == 2 and "started with classes = 3, not 4" in done.err, done.err
    os.truncate(tmp_path / "run" / "state.pt", 1_000_000)
    done = run_command(*arguments)
    assert done.status == 2 and "state.pt is damaged" in done.err, done.err


@needs_training
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_one_sentence_from_a_loading_process(
    tmp_path: Path, pictures: Path, run_command: Runner, workers: int
) -> None:
    shutil.copytree(pictures, tmp_path / "tree")
    bad = tmp_path / "tree" / "b" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    done = run_command(
        "train", "--data", tmp_path / "tree", *OPTIONS, "--workers", workers, "--steps", 3,
        "--run", tmp_path / "run", "--output", tmp_path / "o.safetensors",
    )  # fmt: skip
    assert done.status == 2 and f"{bad} is a damaged image" in done.err, done.err
    assert done.err.strip().count("\n") == 0
    assert not (tmp_path / "o.safetensors").exists()


@needs_training
def test_a_file_that_is_not_an_image_ends_a_run_before_its_first_step(
    tmp_path: Path, pictures: Path
) -> None:
    from sepvit_edge.training.sets import open_sets

    shutil.copytree(pictures, tmp_path / "tree")
    bad = tmp_path / "tree" / "c" / "3.png"
    bad.write_bytes(b"<html>")
    recipe = TrainingRecipe(data=str(tmp_path / "tree"))
    with pytest.raises(SepViTError, match=r"c/3.png is not an image that Pillow can read"):
        open_sets(recipe, ("a", "b", "c"))


@needs_training
def test_a_loading_process_that_is_killed_is_one_sentence(
    tmp_path: Path, pictures: Path, run_command: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sepvit_edge.training.data import TrainingImages

    whole = TrainingImages.__getitem__

    def killed(self: TrainingImages, key: tuple[int, int, int]) -> object:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, key)

    monkeypatch.setattr(TrainingImages, "__getitem__", killed)
    done = run_command(
        "train", "--data", pictures, *OPTIONS, "--workers", 1, "--steps", 3,
        "--run", tmp_path / "run", "--output", tmp_path / "o.safetensors",
    )  # fmt: skip
    assert done.status == 2 and "a process that loads images was killed" in done.err, done.err


def test_a_negative_number_of_workers_is_refused(tmp_path: Path, run_command: Runner) -> None:
    done = run_command("train", "--output", tmp_path / "o.safetensors", "--workers", -1)
    assert done.status == 2 and "--workers" in done.err, done.err


@needs_training
def test_an_output_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    from sepvit_edge.training.checkpoint import train_checkpoint

    output = tmp_path / "o.safetensors"
    output.mkdir()
    with pytest.raises(SepViTError, match="is a folder; name a file in it"):
        train_checkpoint(output, RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()
