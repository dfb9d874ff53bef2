"""The parts to keep in float: the front, the choice on it, and the command with its recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import MINIMAL, Runner, mini_digits
from PIL import Image

from sepvit_edge.checkpoints.files import save_checkpoint
from sepvit_edge.config.recipe import load_recipe
from sepvit_edge.config.toml import to_toml, tomllib
from sepvit_edge.errors import CheckFailed, SepViTError
from sepvit_edge.pipeline import lowering
from sepvit_edge.profiling import precision_search
from sepvit_edge.profiling.document import AttributedPart, Attribution, Latency, Profile
from sepvit_edge.profiling.precision import (
    Choice,
    Loss,
    PartCost,
    first_within,
    front_of,
    images_needed,
    loss_of,
    part_costs,
)
from sepvit_edge.quantization.sensitivity import Sensitivity, layers_by_part


def cost(part: str, noise: float, saved: float) -> PartCost:
    return PartCost(part, 1, noise, noise / 100, fp32_ms=10.0, int8_ms=10.0 - saved)


def test_the_front_takes_the_most_noise_per_millisecond_first() -> None:
    parts = [
        cost("cheap and loud", 40, 1.0),
        cost("dear and loud", 50, 5.0),
        cost("quiet", 9.9, 2.0),
        cost("slower in int8", 0.1, -3.0),
    ]
    front, first = front_of(parts, int8_ms=30.0)
    kept = [choice.keep_float for choice in front]
    assert kept == [
        (),
        ("slower in int8",),
        ("slower in int8", "cheap and loud"),
        ("slower in int8", "cheap and loud", "dear and loud"),
    ]
    assert first == 1
    assert [choice.estimated_ms for choice in front] == pytest.approx([30, 27, 28, 33])
    assert [choice.noise_share for choice in front] == pytest.approx([1, 0.999, 0.599, 0.099])


def test_times_of_parts_are_shares_of_the_p50() -> None:
    noise = [Sensitivity(part, 1, 40.0, 1.0, 0.5) for part in ("head", "input", "everything")]
    fp32 = profile_of({"head": 6.0, "input": 2.0}, 8.0, operations=True)
    # The runs in which operations were timed took three times as long.
    slow = profile_of({"head": 9.0, "input": 3.0}, 12.0, operations=True)
    assert slow.latency is not None
    int8 = slow.model_copy(update={"latency": slow.latency.model_copy(update={"p50_ms": 4.0})})
    costs, fp32_ms, int8_ms = part_costs(noise, fp32, int8)
    assert (fp32_ms, int8_ms) == (8.0, 4.0)
    assert [cost.saved_ms for cost in costs] == pytest.approx([3.0, 1.0])
    with pytest.raises(SepViTError, match="tells no times of single operations"):
        part_costs(noise, fp32, profile_of({}, 4.0, operations=False))


def losing(*points: float):
    """A front whose choices lose so many points, and what measures them and counts."""
    front = [Choice(tuple("abcdefghij"[:i]), 1.0, 1.0) for i in range(len(points))]
    measured: list[int] = []

    def measure(choice: Choice) -> Choice:
        measured.append(len(choice.keep_float))
        lost = points[len(choice.keep_float)]
        return replace(choice, loss=Loss(0.5, lost, (lost - 1, lost + 1)))

    return front, measure, measured


def test_the_first_choice_within_the_budget_is_found_in_few_measurements() -> None:
    points = (9.0, 7.0, 5.0, 3.0, 2.0, 0.5, 0.4, 0.1, 0.0, 0.0)
    for within, right in ((0.5, 5), (10, 0), (2.9, 4), (0.05, 8)):
        front, measure, measured = losing(*points)
        index = first_within(front, 0, within, measure)
        assert index == right and front[index].loss is not None
        assert len(measured) <= 6
    front, measure, measured = losing(*points)
    assert first_within(front, 2, 8, measure) == 2 and measured == [2]


def test_a_budget_that_int8_cannot_keep_is_said() -> None:
    front, measure, _ = losing(9.0, 7.0, 5.0)
    with pytest.raises(CheckFailed, match="single part already loses more than 1 points"):
        first_within(front, 0, 1, measure)
    with pytest.raises(CheckFailed, match="slower than fp32 in every part"):
        first_within(front, 3, 1, measure)


def test_a_loss_is_the_references_accuracy_less_its_own() -> None:
    labels = np.zeros(200, int)
    reference = np.tile([1.0, 0.0], (200, 1))
    worse = reference.copy()
    worse[:3] = worse[:3, ::-1]
    assert str(loss_of(reference, reference, labels).points) == "0.0"
    loss = loss_of(reference, worse, labels)
    assert loss.top1 == pytest.approx(0.985) and loss.points == pytest.approx(1.5)
    # 4/202 and 1/202: 1.485 points, and 1.96 standard errors of 1.102
    assert loss.interval == pytest.approx((1.485 - 2.160, 1.485 + 2.160), abs=2e-3)
    assert images_needed(loss, 200, within=1.5) is None
    half = (loss.interval[1] - loss.interval[0]) / 2
    assert images_needed(loss, 200, within=1.5 + half / 2) == 800  # half the width: four times


def test_toml_is_read_as_it_was_written() -> None:
    document = {
        "target": 'a"b\\c',
        "description": "é 😀 \x7f \x01 \n",
        "images": 3,
        "options": {"half": 0.5, "on": True},
        "quantization": {"keep_float": ["stages.0.*", "head"], "none": []},
    }
    assert tomllib.loads(to_toml(document)) == document


LOUD = "stages.2.blocks.0.mlp"
SLOW = "stages.3.patch_embedding"


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration is quick, and makes what one part adds 100 times too large."""
    right = lowering.calibrate

    def wrong(*arguments, **options):
        quantization = right(*arguments, **{**options, "images": 16})
        layers = dict(quantization.layers)
        if (name := f"{LOUD}.fc2") in layers:
            layer = layers[name]
            scales = {"weight_scale": layer.weight_scale * 100}
            layers[name] = replace(layer, **scales, output_scale=layer.output_scale * 100)
        return replace(quantization, layers=layers)

    monkeypatch.setattr(lowering, "calibrate", wrong)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A device on which a part takes 2 ms in float and 1 ms in int8, but SLOW 9 ms in int8."""
    measured: list[list[str]] = []

    def measure(packages, name, device, request, step):
        profiles = []
        for package in packages:
            quantization = package.manifest.quantization
            parts = dict.fromkeys(layers_by_part(all_layers()), 2.0)
            if quantization is not None:
                floats = {layer.name for layer in quantization.float_layers}
                kept = layers_by_part([layer for layer in all_layers() if layer not in floats])
                parts |= {part: 9.0 if part == SLOW else 1.0 for part in kept}
            measured.append([package.path.name])
            whole = sum(parts.values())
            profiles.append(profile_of(parts, whole, request.operations))
        return profiles

    monkeypatch.setattr(precision_search, "measure_packages", measure)
    monkeypatch.setattr(precision_search, "_NOISE_IMAGES", 8)
    return measured


def all_layers() -> list[str]:
    from sepvit_edge.model.edge import EdgeModel
    from sepvit_edge.quantization.scheme import quantizable_layers

    return list(quantizable_layers(EdgeModel(mini_digits(), 1)))


def profile_of(parts: dict[str, float], whole: float, operations: bool) -> Profile:
    latency = dict.fromkeys(("min_ms", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms"), whole)
    attribution = Attribution(
        method="made up",
        whole_us=whole * 1e3,
        unattributed_us=0,
        parts=[
            AttributedPart(part=part, time_us=ms * 1e3, operations=1, macs=1, moved_mb=1)
            for part, ms in parts.items()
        ],
    )
    profile = Profile.model_validate(MINIMAL)
    measured = Latency.model_validate({**latency, "runs": 1, "runs_ms": [whole]})
    return profile.model_copy(
        update={"latency": measured, "attribution": attribution if operations else None}
    )


@pytest.mark.slow  # four exports
def test_a_recipe_keeps_the_loud_part_and_the_slow_one_in_float(
    run_command: Runner, tmp_path: Path, loud: None, device: list[list[str]]
) -> None:
    pytest.importorskip("openvino")
    weights, recipe = tmp_path / "digits.safetensors", tmp_path / "kept.toml"
    save_checkpoint(mini_digits(), weights, trained_on="digits/train")
    chart = tmp_path / "front.png"
    arguments = ("--weights", weights, "--within", 3, "--images", 40, "--chart", chart)
    done = run_command("quantize", *arguments, "--output", recipe, "--json")
    assert done.status == 0, done.err
    plan = json.loads(done.out)
    assert plan["chosen"]["keep_float"] == [SLOW, LOUD]
    assert plan["front"][0]["loss"] is None  # beaten by the point without SLOW
    assert plan["front"][1]["loss"]["points"] > 10  # measured 17.5; without the loud part under 3
    assert plan["loss"]["points"] <= 3 and plan["verdict"] == "too few images to tell"
    assert plan["images_needed"] > 40
    parts = {part["part"]: part for part in plan["parts"]}
    assert parts[LOUD]["noise_share"] > 0.9 and parts[LOUD]["saved_ms"] == pytest.approx(1)
    assert parts[SLOW]["saved_ms"] == pytest.approx(-7)
    assert plan["chosen_ms"] == plan["int8_ms"] - 7 + 1
    assert [name for (name,) in device] == ["fp32", "int8", "chosen"]
    assert min(Image.open(chart).size) > 400

    assert load_recipe(recipe).quantization.keep_float == (LOUD, SLOW)
    export = ("--weights", weights, "--recipe", recipe, "--output", tmp_path / "p", "--images", 8)
    exported = run_command("export", *export, "--json")
    assert exported.status == 0, exported.err
    document = json.loads(exported.out)["manifest"]["quantization"]["float_layers"]
    asked = {one["name"] for one in document if one["reason"].startswith("asked for")}
    assert asked == {f"{LOUD}.fc1", f"{LOUD}.fc2", f"{SLOW}.proj"}

    again = run_command("quantize", *arguments, "--output", recipe)
    assert again.status == 2 and "exists; give another --output" in again.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--device", "local"], "--device is for --within"),
        (["--chart", "a.png"], "--chart draws --sensitivity or --within"),
        (["--within", "1", "--sensitivity"], "leave --sensitivity out"),
        (["--within", "1", "--device", "nowhere"], "unknown device 'nowhere'"),
        (["--within", "1", "--target", "tensorrt"], "unknown target 'tensorrt'"),
        (["--within", "1", "--output", "a.json"], "must end with .toml"),
        (["--within", "1", "--output", "missing/a.toml"], "does not exist"),
        (["--within", "1", "--device", "emulated-cortex-a72"], "mean nothing"),
        (["--within", "1", "--target", "ethos-u"], "computes everything in integers"),
        (["--within", "1", "--data", "photos"], "have no labels"),
    ],
)
def test_wrong_options_are_one_sentence(
    run_command: Runner, tmp_path: Path, monkeypatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "a.png")
    done = run_command("quantize", "--weights", "lite-digits", "--images", 1, *arguments)
    assert done.status == 2 and sentence in done.err, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
