"""SepViT as models of timm: import this module, then `timm.create_model("sepvit_t")`.

The parameters have the reference's names, so that a state dict trained with timm is a checkpoint
for this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from timm.models import register_model
from timm.models._features import FeatureInfo
from torch import Tensor, nn

from ..errors import SepViTError
from .reference import STRIDES, SepViT, initialize_layer
from .variants import ModelConfig, find_variant


class TimmSepViT(SepViT):
    """The reference with the methods that timm's models have.

    Parameters
    ----------
    config : ModelConfig
        Variant, number of classes and image size.
    drop_path : float
        Rate of stochastic depth at the last block.

    Attributes
    ----------
    num_features : int
        Channels of the pooled features.
    feature_info : timm.models.FeatureInfo
        Channels and stride of each stage's map.
    pretrained_cfg : dict
        Input size, mean and std, for `timm.data.resolve_model_data_config`.
    """

    def __init__(self, config: ModelConfig, drop_path: float = 0.0) -> None:
        super().__init__(config, drop_path)
        dims = find_variant(config.variant).dims
        self.num_classes = config.num_classes
        self.num_features = self.head_hidden_size = dims[-1]
        self.feature_info = FeatureInfo(
            [
                {"num_chs": dim, "reduction": stride, "module": f"stages.{i}"}
                for i, (dim, stride) in enumerate(zip(dims, STRIDES, strict=True))
            ],
            out_indices=tuple(range(len(dims))),
        )
        rule = config.preprocessing
        self.pretrained_cfg = {
            "architecture": f"sepvit_{config.variant}",
            "input_size": (3, config.image_size, config.image_size),
            "num_classes": config.num_classes,
            "crop_pct": rule.crop,
            "interpolation": "bilinear",
            "mean": rule.mean,
            "std": rule.std,
            "first_conv": "patch_embeds.0.proj",
            "classifier": "head",
        }
        self.default_cfg = self.pretrained_cfg

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the normed tokens (B, N, num_features) of images (B, 3, H, W)."""
        last = super().forward(x, features=True)[-1]
        return self.norm(last.flatten(2).transpose(1, 2))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits of tokens, or with `pre_logits` their mean (B, num_features)."""
        x = x.mean(1)
        return x if pre_logits else self.head(x)

    def forward(  # type: ignore[override]
        self, x: Tensor, features: bool = False
    ) -> Tensor | list[Tensor]:
        """Classify, or return the pooled features where there are no classes."""
        if features:
            return super().forward(x, features=True)
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one, or by none for 0 classes."""
        if global_pool not in (None, "avg"):
            raise SepViTError(f"SepViT averages its tokens; there is no pooling {global_pool!r}")
        self.num_classes = num_classes
        # timm's way to have none; only `forward_head` meets it.
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head = head.apply(initialize_layer)  # type: ignore[assignment]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse to compute activations twice, which is not supported."""
        if enable:
            raise SepViTError("SepViT does not support gradient checkpointing")


class TimmFeatures(nn.Module):
    """The maps of some stages, as timm's ``features_only=True`` returns them.

    Parameters
    ----------
    model : TimmSepViT
        The network.
    out_indices : sequence of int
        Stages, of 0 to 3.
    """

    def __init__(self, model: TimmSepViT, out_indices: Sequence[int]) -> None:
        super().__init__()
        count = len(STRIDES)
        if not out_indices or not all(-count <= i < count for i in out_indices):
            raise SepViTError(f"out_indices are stages, 0 to {count - 1}, not {out_indices!r}")
        stages = tuple(i % count for i in out_indices)
        self.model, self.out_indices = model, stages
        info = [model.feature_info.info[i] for i in range(count)]
        self.feature_info = FeatureInfo(info, out_indices=stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps (B, C, H / stride, W / stride) of images (B, 3, H, W)."""
        maps = cast("list[Tensor]", self.model(x, features=True))
        return [maps[i] for i in self.out_indices]


def _create(
    variant: str,
    pretrained: bool = False,
    num_classes: int = 1000,
    img_size: int = 224,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    features_only: bool = False,
    out_indices: Sequence[int] = (0, 1, 2, 3),
    **options: Any,
) -> nn.Module:
    """Create a model with timm's names of options."""
    # `timm.create_model` adds these, None where they were not given.
    unknown = {key for key, value in options.items() if value is not None and key != "cache_dir"}
    if pretrained:
        raise SepViTError(
            "the authors published no weights of SepViT; give checkpoint_path to timm.create_model"
        )
    if in_chans != 3:
        raise SepViTError(f"SepViT takes RGB images: in_chans is 3, not {in_chans}")
    if unknown:
        raise SepViTError(f"SepViT has no option {sorted(unknown)[0]!r}")
    model = TimmSepViT(ModelConfig(variant, num_classes or 1, img_size), drop_path_rate)
    if not num_classes or features_only:
        model.reset_classifier(0)
    return TimmFeatures(model, out_indices) if features_only else model


@register_model
def sepvit_lite(pretrained: bool = False, **options: Any) -> nn.Module:
    """SepViT-Lite (section 4 of the paper)."""
    return _create("lite", pretrained, **options)


@register_model
def sepvit_t(pretrained: bool = False, **options: Any) -> nn.Module:
    """SepViT-T."""
    return _create("t", pretrained, **options)


@register_model
def sepvit_s(pretrained: bool = False, **options: Any) -> nn.Module:
    """SepViT-S."""
    return _create("s", pretrained, **options)


@register_model
def sepvit_b(pretrained: bool = False, **options: Any) -> nn.Module:
    """SepViT-B."""
    return _create("b", pretrained, **options)
