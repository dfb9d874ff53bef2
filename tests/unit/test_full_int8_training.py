"""Training with every operation in integers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers import mini_digits
from torch.fx import Node

from sepvit_edge.data.digits import Digits
from sepvit_edge.data.preprocess import preprocess
from sepvit_edge.data.sample import Dataset
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.edge import EdgeModel
from sepvit_edge.model.logits import normalize
from sepvit_edge.model.reference import SepViT
from sepvit_edge.quantization.exact import _Exact, run_exactly
from sepvit_edge.quantization.scheme import quantizable_layers, quantize_weight, weight_scales
from sepvit_edge.training import full_int8 as full_int8_training
from sepvit_edge.training.checkpoint import train_checkpoint
from sepvit_edge.training.full_int8 import FullQuantizedTrainee, _FakeQuantized
from sepvit_edge.training.recipe import TrainingRecipe


@pytest.fixture(scope="module")
def digits_model() -> SepViT:
    return mini_digits()


def pixels_of(data: Dataset, model: SepViT, count: int) -> torch.Tensor:
    rule = model.config.preprocessing
    return torch.from_numpy(np.stack([preprocess(data[i].image, rule, 64) for i in range(count)]))


@pytest.fixture(scope="module")
def full_trainee(digits_model: SepViT) -> FullQuantizedTrainee:
    recipe = TrainingRecipe(data="digits", batch=8, resolution_schedule=((64, 1.0),))
    return FullQuantizedTrainee.calibrated(digits_model, recipe, Digits("calibration"))


def least_share_of_equal_integers(
    trainee: FullQuantizedTrainee, model: SepViT, pixels: torch.Tensor, patch: pytest.MonkeyPatch
) -> tuple[float, str]:
    """Run each operation in training on the integers that its program has there.

    So an activation that is rounded the other way moves none behind it, on any CPU.
    """
    quantization = trainee._quantization
    wanted: dict[str, torch.Tensor] = {}
    equal: dict[str, float] = {}
    run_exact, run_trained = _Exact.run_node, _FakeQuantized.run_node

    def record(self: _Exact, node: Node) -> object:
        value = wanted[node.name] = run_exact(self, node)
        return value

    def compare(self: _FakeQuantized, node: Node) -> object:
        value = run_trained(self, node)
        expected = wanted.get(f"{node.name}_dequantize")
        if node.name not in quantization.qparams or expected is None:
            return value
        difference = (value - expected).abs() / quantization.qparams[node.name].scale
        assert difference.max() < 1.5, node.name
        equal[node.name] = float((difference < 0.5).double().mean())
        return expected

    with patch.context() as patched:
        patched.setattr(_Exact, "run_node", record)
        patched.setattr(_FakeQuantized, "run_node", compare)
        edge = EdgeModel(model, len(pixels), quantization.form)
        run_exactly(quantization.program(edge), pixels)
        with torch.no_grad():
            trainee(normalize(model, pixels).double())
    assert len(equal) > 0.9 * len(quantization.qparams)
    return min((share, name) for name, share in equal.items())


def test_full_int8_is_trained_with_the_rounding_of_its_program(
    full_trainee, digits_model, monkeypatch
) -> None:
    pixels = pixels_of(Digits("test"), digits_model, 8)
    share, name = least_share_of_equal_integers(full_trainee, digits_model, pixels, monkeypatch)
    assert share > 0.95, name
    # The test would notice: halves to even are another integer in half of the pixels.
    monkeypatch.setattr(full_int8_training, "round_half_up", torch.round)
    share, name = least_share_of_equal_integers(full_trainee, digits_model, pixels, monkeypatch)
    assert share < 0.8, name


def test_gradients_pass_through_the_rounding(full_trainee, digits_model) -> None:
    trainee = copy.deepcopy(full_trainee)
    x = normalize(digits_model, pixels_of(Digits("train"), digits_model, 16))
    with torch.no_grad():
        wanted = digits_model(x)
        # Something to learn: rounding alone costs next to nothing here.
        trainee.edge.stages[1].blocks[0].mlp.fc2.weight *= 0.5
    weights = [p for p in trainee.parameters() if p.requires_grad]

    def gradient() -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(trainee(x), wanted)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])

    rounded = gradient()
    with trainee.unrounded():
        floating = gradient()
    # The same way as without rounding, but for what each activation was moved by.
    assert torch.cosine_similarity(rounded, floating, 0) > 0.5


def test_what_was_trained_is_what_an_export_finds(full_trainee) -> None:
    trainee = copy.deepcopy(full_trainee)
    with torch.no_grad():
        for parameter in trainee.parameters():
            parameter *= 1.01
    model = trainee.finished()
    assert model.quantization is not None and model.quantization.trained
    twin = quantizable_layers(EdgeModel(model, 1, trainee.edge.form))
    for name, layer in quantizable_layers(trainee.edge).items():
        trained = quantize_weight(layer.weight, weight_scales(layer.weight))
        found = quantize_weight(twin[name].weight, weight_scales(twin[name].weight))
        assert torch.equal(trained, found), name


def test_what_training_refuses(tmp_path) -> None:
    recipe = TrainingRecipe(data="digits", batch=8)
    for options, sentence in (
        ({"qat": True, "keep_float": ["head"]}, "leaves no layer in float"),
        ({}, "give --qat"),
    ):
        with pytest.raises(SepViTError, match=sentence):
            train_checkpoint(
                tmp_path / "w.safetensors",
                recipe,
                tmp_path / "run",
                weights="lite-digits",
                scheme="full",
                **options,
            )
    assert not list(tmp_path.iterdir())
