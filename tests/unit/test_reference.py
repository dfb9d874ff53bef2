"""The reference against the paper's figures, and against a second writing of the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import jittered

import sepvit_edge
from sepvit_edge.model.reference import (
    DropPath,
    SepViTBlock,
    count_macs,
    count_parameters,
    with_config,
)
from sepvit_edge.model.variants import VARIANTS, ModelConfig, find_variant, windows

# arXiv 2203.15380: parameters to the last one, MACs as measured with 1000 classes at 224.
PUBLISHED = {
    "lite": (3_661_128, 0.5684e9),
    "t": (31_182_856, 4.519e9),
    "s": (46_570_504, 7.455e9),
    "b": (82_377_064, 13.055e9),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_and_macs_are_the_published_ones(variant: str) -> None:
    with torch.device("meta"):
        model = sepvit_edge.create_model(variant)
    parameters, macs = PUBLISHED[variant]
    assert count_parameters(model) == parameters
    assert count_macs(model) == pytest.approx(macs, rel=0.005)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)
    return scaled * norm.weight.numpy(force=True) + norm.bias.numpy(force=True)


def linear(x: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    return x @ layer.weight.numpy(force=True).T + layer.bias.numpy(force=True)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def block_by_loops(block: SepViTBlock, x: np.ndarray) -> np.ndarray:
    """Sections 3.2 and 3.3 written as loops over windows and heads: (H, W, C) -> (H, W, C)."""
    side, _, C = x.shape
    ws, d, attn = block.ws, 32, block.attn
    corners = [(r, c) for r in range(0, side, ws) for c in range(0, side, ws)]
    outputs = []
    for n, (r, c) in enumerate(corners):
        window = x[r : r + ws, c : c + ws].reshape(-1, C)
        if block.separable:
            token = block.win_tokens.numpy(force=True)[0, n]
            window = np.concatenate([token, window])
        window = layer_norm(window, block.norm1)
        q, k, v = np.split(linear(window, attn.DSA_qkv), 3, axis=1)
        heads = []
        for h in range(C // d):
            part = slice(h * d, (h + 1) * d)
            heads.append(softmax(q[:, part] @ k[:, part].T / math.sqrt(d)) @ v[:, part])
        outputs.append(np.concatenate(heads, 1) + window)
    pixels = [o[1:] if block.separable else o for o in outputs]
    if block.separable:
        tokens = np.stack([o[0] for o in outputs])
        q, k = np.split(linear(gelu(layer_norm(tokens, attn.win_tokens_norm)), attn.PSA_qk), 2, 1)
        mixed = [p.copy() for p in pixels]
        for h in range(C // d):
            part = slice(h * d, (h + 1) * d)
            weights = softmax(q[:, part] @ k[:, part].T / math.sqrt(d))
            for i in range(len(corners)):
                for j in range(len(corners)):
                    mixed[i][:, part] += weights[i, j] * pixels[j][:, part]
        pixels = mixed
    attended = np.empty_like(x)
    for (r, c), window in zip(corners, pixels, strict=True):
        attended[r : r + ws, c : c + ws] = window.reshape(ws, ws, C)
    x = x + linear(attended, attn.proj)
    return x + linear(gelu(linear(layer_norm(x, block.norm2), block.mlp.fc1)), block.mlp.fc2)


@pytest.mark.parametrize(("stage", "index"), [(0, 0), (1, 0), (1, 1), (2, 1), (3, 0)])
def test_a_block_equals_the_paper_written_as_loops(stage: int, index: int) -> None:
    model = jittered("lite", image_size=96)
    block = model.blocks[stage][index]
    side, C = block.side, block.norm1.weight.numel()
    x = torch.randn(1, side * side, C, dtype=torch.float64)
    with torch.no_grad():
        block = block.double()
        expected = block_by_loops(block, x[0].numpy().reshape(side, side, C))
        actual = block(x)[0].numpy().reshape(side, side, C)
    # float64 on both sides: what is left is the order of summation
    np.testing.assert_allclose(actual, expected, atol=1e-9)


def test_depths_can_be_named() -> None:
    few = ModelConfig("Lite-1-2-2-2")
    variant = find_variant(few.variant)
    assert few.variant == "lite-1-2-2-2" and variant.depths == (1, 2, 2, 2)
    blocks = sepvit_edge.create_model("lite-1-2-2-2").blocks
    assert [len(stage) for stage in blocks] == [1, 2, 2, 2]
    assert find_variant("lite-1-2-6-2").dims == VARIANTS["lite"].dims
    for wrong in ("mini", "lite-1", "lite-1-1-1-0", "lite-1-1-1-x", "few-1-1-1-1", "lite-"):
        with pytest.raises(sepvit_edge.SepViTError, match="unknown variant"):
            find_variant(wrong)


def test_windows_are_those_of_the_paper() -> None:
    assert windows((1, 2, 6, 2), 224) == [[7], [7, 14], [7, 14] * 3, [7, 7]]
    assert windows((1, 2, 14, 2), 160) == [[5], [5, 10], [5, 10] * 7, [5, 5]]


@pytest.mark.parametrize("size", [32, 96, 160])
def test_features_are_four_maps_at_any_multiple_of_32(size: int) -> None:
    model = jittered("lite", image_size=size)
    with torch.no_grad():
        maps = model(torch.randn(2, 3, size, size), features=True)
    strides = (4, 8, 16, 32)
    expected = [(2, 32 * 2**i, size // s, size // s) for i, s in enumerate(strides)]
    assert [tuple(m.shape) for m in maps] == expected


@pytest.mark.parametrize(("size", "near"), [(200, "192 and 224"), (33, "32 and 64"), (0, "32")])
def test_other_sizes_are_refused_with_the_nearest_that_work(size: int, near: str) -> None:
    with pytest.raises(sepvit_edge.SepViTError, match=near):
        sepvit_edge.create_model("lite", image_size=size)


def test_weights_do_not_depend_on_the_image_size() -> None:
    model = jittered("lite", image_size=64)
    larger = with_config(model, ModelConfig("lite", 10, 96))
    assert larger.state_dict().keys() == model.state_dict().keys()
    assert larger.head.weight is model.head.weight
    assert larger(torch.randn(1, 3, 96, 96)).shape == (1, 10)


def test_state_dict_keys_are_the_authors() -> None:
    keys = sepvit_edge.create_model("lite").state_dict().keys()
    for key in (
        "patch_embeds.0.proj.weight",
        "patch_embeds.3.norm.bias",
        "pos_block.2.proj.0.weight",
        "blocks.1.1.win_tokens",
        "blocks.2.4.attn.win_tokens_norm.weight",
        "blocks.2.4.attn.PSA_qk.weight",
        "blocks.3.1.attn.DSA_qkv.bias",
        "blocks.3.1.attn.proj.weight",
        "blocks.0.0.mlp.fc2.bias",
        "norm.weight",
        "head.weight",
    ):
        assert key in keys
    # one window: no token and no PSA (stage 3's grouped blocks, all of stage 4)
    for key in ("blocks.2.1.win_tokens", "blocks.3.0.attn.PSA_qk.weight"):
        assert key not in keys


def test_drop_path_keeps_the_expectation_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(20_000, 1)
    kept = drop(x)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    # 20,000 draws: the mean's standard deviation is 0.004
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    assert drop.eval()(x) is x
    stages = sepvit_edge.create_model("lite", drop_path=0.1).blocks
    rates = [block.drop_path.rate for stage in stages for block in stage]
    assert rates[0] == 0 and rates[-1] == pytest.approx(0.1) and rates == sorted(rates)
