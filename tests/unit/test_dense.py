"""Dense prediction: the reference against the paper's figures, and against its facts in loops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import MINI, dense_model, mini_digits, random_pixels
from torch import nn

import sepvit_edge
from sepvit_edge.checkpoints.files import save_checkpoint
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.dense import DenseConfig, count_macs, from_classifier, with_dense_config
from sepvit_edge.model.dense.backbone import DenseBackbone, DenseBlock
from sepvit_edge.model.dense.config import fit_window
from sepvit_edge.model.dense.network import module_macs
from sepvit_edge.model.logits import normalize
from sepvit_edge.model.reference import with_config
from sepvit_edge.model.variants import Source
from sepvit_edge.pipeline.defaults import default_calibration, default_data
from sepvit_edge.quantization.images import calibration_pixels

SEGMENTATION, DETECTION = (512, 2048), (800, 1280)
# arXiv 2203.15380, tables of ADE20K and COCO: GFLOPs, convolutions and linears alone.
PUBLISHED = {
    ("semantic-fpn", SEGMENTATION): {"t": 181.5, "s": 244.0, "b": 366.8},
    ("upernet", SEGMENTATION): {"t": 940.1, "s": 1002.6, "b": 1127.5},
    ("retinanet", DETECTION): {"t": 242.4, "s": 301.8},
}
TASK = {"semantic-fpn": "segmentation", "upernet": "segmentation", "retinanet": "detection"}


@pytest.mark.parametrize(
    ("head", "size", "variant", "published"),
    [(*key, variant, g) for key, row in PUBLISHED.items() for variant, g in row.items()],
)
def test_macs_are_the_published_ones(
    head: str, size: tuple[int, int], variant: str, published: float
) -> None:
    with torch.device("meta"):
        model = sepvit_edge.create_model(variant, task=TASK[head], head=head)
        macs = module_macs(model, torch.empty(1, 3, *size), attention=False)
    assert macs / 1e9 == pytest.approx(published, abs=0.05)


def test_macs_of_a_model_are_those_of_its_input_size() -> None:
    model = sepvit_edge.create_model(MINI, 3, task="detection", input_size=(64, 96), channels=8)
    counted = [module_macs(model, torch.zeros(1, 3, 64, 96), attention) for attention in (0, 1)]
    assert [count_macs(model, attention=False), count_macs(model)] == counted
    assert counted[1] > 1.02 * counted[0]


@pytest.mark.parametrize(("variant", "published"), [("t", 261.3), ("s", 320.8)])
def test_macs_of_mask_rcnn_are_the_published_ones(variant: str, published: float) -> None:
    """With 1000 proposals and 100 masks."""
    with torch.device("meta"):
        model = sepvit_edge.create_model(
            variant, task="detection", head="mask-rcnn", input_size=DETECTION
        )
    assert count_macs(model, attention=False) / 1e9 == pytest.approx(published, abs=0.05)


def block_by_loops(block: DenseBlock, x: torch.Tensor) -> torch.Tensor:
    """(H, W, C) -> the same, window by window."""
    H, W, C = x.shape
    ws, heads, attn = block.ws, C // 32, block.attn
    rows, columns = math.ceil(H / ws), math.ceil(W / ws)
    padded = torch.zeros(rows * ws, columns * ws, C)
    padded[:H, :W] = x
    token = block.norm1(torch.zeros(C))
    pixels, tokens = [], []
    for i in range(rows):
        for j in range(columns):
            window = padded[i * ws : (i + 1) * ws, j * ws : (j + 1) * ws].reshape(-1, C)
            z = torch.cat((token[None], block.norm1(window)))
            q, k, v = attn.DSA_qkv(z).chunk(3, 1)
            mixed = []
            for h in range(heads):
                part = slice(32 * h, 32 * h + 32)
                a = torch.softmax(q[:, part] @ k[:, part].T / 32**0.5, 1)
                mixed.append(a @ v[:, part])
            z = torch.cat(mixed, 1) + z
            tokens.append(z[0])
            pixels.append(z[1:])
    q, k = attn.PSA_qk(F.gelu(attn.win_tokens_norm(torch.stack(tokens)))).chunk(2, 1)
    out = torch.zeros_like(padded)
    for n in range(rows * columns):
        y = pixels[n].clone()
        for h in range(heads):
            part = slice(32 * h, 32 * h + 32)
            a = torch.softmax(q[n, part] @ k[:, part].T / 32**0.5, 0)
            y[:, part] += sum(a[m] * pixels[m][:, part] for m in range(rows * columns))
        i, j = divmod(n, columns)
        out[i * ws : (i + 1) * ws, j * ws : (j + 1) * ws] = y.reshape(ws, ws, C)
    x = x + attn.proj(out[:H, :W])
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize(("size", "ws"), [((5, 9), 4), ((3, 4), 7), ((4, 8), 4)])
def test_a_block_is_what_the_loops_say(size: tuple[int, int], ws: int) -> None:
    torch.manual_seed(0)
    block = DenseBlock(64, ws, 0.0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        x = torch.randn(1, *size, 64)
        expected = block_by_loops(block, x[0])
        assert torch.allclose(block(x)[0], expected, atol=2e-5)


def test_the_norm_of_a_stage_is_in_the_stream() -> None:
    torch.manual_seed(0)
    backbone = DenseBackbone(MINI, 7)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = backbone(x)
        backbone.norm_list[0].bias += torch.randn(32)
        after = backbone(x)
    assert [tuple(m.shape[1:]) for m in after] == [
        (32, 16, 24), (64, 8, 12), (128, 4, 6), (256, 2, 3),
    ]  # fmt: skip
    assert all((a - b).abs().max() > 0.1 for a, b in zip(after, before, strict=True))


def test_windows_change_answers_and_no_weights() -> None:
    model = sepvit_edge.create_model(
        MINI, 5, task="segmentation", input_size=(128, 256), channels=16
    )
    model.eval()
    fitted = with_dense_config(
        model, DenseConfig("segmentation", "semantic-fpn", MINI, 5, (128, 256), "fit", 16)
    )
    assert fitted.config.window_side == 4 and fitted.backbone.blocks[1][0].ws == 4
    assert fitted.state_dict().keys() == model.state_dict().keys()
    x = torch.randn(1, 3, 128, 256)
    with torch.no_grad():
        assert model(x).shape == fitted(x).shape == (1, 5, 32, 64)
        assert not torch.allclose(model(x), fitted(x), atol=1e-3)


def test_retinanet_orders_levels_rows_columns_anchors() -> None:
    torch.manual_seed(0)
    model = sepvit_edge.create_model(MINI, 3, task="detection", input_size=(64, 96), channels=8)
    model.eval()
    sides = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    levels = [torch.randn(1, 8, *side) for side in sides]
    with torch.no_grad():
        logits, deltas = model.bbox_head(levels)
        count = sum(9 * h * w for h, w in sides)
        assert logits.shape == (1, count, 3) and deltas.shape == (1, count, 4)
        # The second level's row 2, column 4, anchor 5.
        index = 9 * 8 * 12 + (2 * 6 + 4) * 9 + 5
        x = levels[1]
        for conv in model.bbox_head.cls_convs:
            x = F.relu(conv(x))
        expected = model.bbox_head.retina_cls(x)[0, 15:18, 2, 4]
        assert torch.allclose(logits[0, index], expected, atol=1e-6)
        assert logits.sigmoid().mean() == pytest.approx(0.01, rel=0.2)
        assert model(torch.randn(2, 3, 64, 96))[1].shape == (2, count, 4)


def test_a_backbone_starts_as_the_classifier_that_it_is_made_of() -> None:
    """With norms that undo themselves, the stream is nearer the classifier's than without."""
    classifier = with_config(mini_digits(), replace(mini_digits().config, image_size=224))
    rule = replace(classifier.config.preprocessing, crop=1.0)
    config = DenseConfig(
        "segmentation", "semantic-fpn", MINI, 4, (224, 224), channels=16, preprocessing=rule
    )
    images = normalize(classifier, torch.from_numpy(random_pixels(2, 224)))
    with torch.no_grad():
        wanted = classifier(images, features=True)
        model = from_classifier(classifier, config, images).eval()
        found = model.backbone(images)
        for norm in model.backbone.norm_list:
            nn.init.ones_(norm.weight), nn.init.zeros_(norm.bias)
        plain = model.backbone(images)

    def distance(maps: list[torch.Tensor]) -> list[float]:
        pairs = [(m / m.std(), w / w.std()) for m, w in zip(maps, wanted, strict=True)]
        return [float((m - w).square().sum() / w.square().sum()) for m, w in pairs]

    # A neck learns from maps of this size; the classifier's own have up to some hundred.
    assert all(0.5 < float(m.std()) < 2 for m in found)
    assert distance(found)[0] < 0.05
    # What a map was divided by, the next stage's first bias is divided by; its weights are as they
    # were, and as quick to learn.
    for stage, own in enumerate(model.backbone.patch_embeds):
        theirs = classifier.patch_embeds[stage].proj
        assert torch.equal(own.proj.weight, theirs.weight)
        factor = float(own.proj.bias.detach().norm() / theirs.bias.detach().norm())
        assert 1 / factor == pytest.approx(float(wanted[stage - 1].std()) if stage else 1, rel=0.2)
    assert all(a < b for a, b in zip(distance(found), distance(plain), strict=True))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"input_size": (500, 512)}, "nearest that works is 512x512"),
        ({"input_size": (4096, 2048)}, "the limit"),
        ({"input_size": (64, 96), "window": "fit"}, "the nearest input size that fits is"),
        ({"head": "retinanet"}, "is for detection; heads for segmentation"),
        ({"head": "upernett"}, "did you mean 'upernet'"),
        ({"window": "big"}, "unknown window rule 'big'"),
        ({"num_classes": 0}, "1 to"),
        ({"image_size": 64}, r"takes input_size=\(height, width\)"),
        ({"channels": 7}, "even number"),
        ({"task": "pose"}, "unknown task 'pose'"),
        ({"task": "classification", "window": "fit"}, "for segmentation and detection"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(SepViTError, match=sentence):
        sepvit_edge.create_model(MINI, **{"task": "segmentation", **arguments})


def test_a_window_that_fits_divides_every_map() -> None:
    assert [fit_window(s, s) for s in (128, 224, 256, 320, 448, 512)] == [4, 7, 8, 5, 7, 8]
    assert fit_window(128, 256) == 4 and fit_window(480, 320) == 5
    with pytest.raises(SepViTError, match="is 128x128"):
        fit_window(96, 128)


def test_a_model_of_scenes_is_calibrated_and_compared_on_scenes() -> None:
    model = dense_model("semantic-fpn", (64, 96))
    assert default_calibration(model).name == "glyphs/calibration"
    model.source = Source("0" * 64, trained_on="scenes/train")
    assert default_calibration(model).name == "scenes/calibration"
    data, images = default_data(model)
    assert (data.name, images) == ("scenes/test", 4)
    pixels, _ = calibration_pixels(model, default_calibration(model), 2)
    assert pixels.shape == (2, 64, 96, 3) and pixels.std() > 10


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    model = sepvit_edge.create_model(MINI, task="segmentation", num_classes=2, channels=8)
    model.decode_head.scale_heads[0][0].bn.running_var.fill_(1e6)
    with pytest.raises(SepViTError, match=r"running_var holds values over float16's largest"):
        save_checkpoint(model, tmp_path / "a.safetensors", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []
    save_checkpoint(model, tmp_path / "a.safetensors")
