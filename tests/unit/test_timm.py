"""SepViT through timm's factory: the reference's numbers, timm's ways to ask for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import jittered

timm = pytest.importorskip("timm", reason="needs the extra train")

import sepvit_edge.model.timm  # noqa: E402, F401  (registers the models)
from sepvit_edge.checkpoints.files import load_checkpoint  # noqa: E402
from sepvit_edge.errors import SepViTError  # noqa: E402


def test_the_variants_are_registered() -> None:
    assert timm.list_models("sepvit_*") == ["sepvit_b", "sepvit_lite", "sepvit_s", "sepvit_t"]


def test_logits_features_and_maps_are_the_references(tmp_path: Path) -> None:
    model = jittered("lite", image_size=64)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    arguments = {"num_classes": 10, "img_size": 64, "checkpoint_path": str(tmp_path / "own.pth")}
    own = timm.create_model("sepvit_lite", **arguments).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits, maps = model(x), model(x, features=True)
        assert torch.allclose(own(x), logits, atol=1e-5)
        pooled = own.forward_head(own.forward_features(x), pre_logits=True)
        assert torch.allclose(own.get_classifier()(pooled), logits, atol=1e-5)
        own.reset_classifier(0)
        assert torch.equal(own(x), pooled) and pooled.shape == (2, own.num_features)
        wanted = {"features_only": True, "out_indices": (1, -1), "img_size": 64}
        backbone = timm.create_model("sepvit_lite", **wanted).eval()
        backbone.model.load_state_dict(model.state_dict(), strict=False)
        found = backbone(x)
    assert backbone.feature_info.channels() == [m.shape[1] for m in found] == [64, 256]
    assert backbone.feature_info.reduction() == [8, 32]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, maps[1::2], strict=True))


def test_a_state_dict_of_timm_is_a_checkpoint(tmp_path: Path) -> None:
    model = timm.create_model("sepvit_lite", num_classes=7, img_size=64)
    torch.save(model.state_dict(), tmp_path / "trained.pth")
    loaded = load_checkpoint(tmp_path / "trained.pth", image_size=64)
    assert loaded.config.num_classes == 7
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(x), model.eval()(x), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pretrained": True}, "published no weights"),
        ({"in_chans": 1}, "takes RGB images"),
        ({"window_size": 8}, "has no option 'window_size'"),
        ({"features_only": True, "out_indices": (4,)}, "stages, 0 to 3"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(SepViTError, match=sentence):
        timm.create_model("sepvit_lite", **options)
