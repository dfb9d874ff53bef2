"""Weights of the reference, folded for the edge form: the only code that reads its parameters.

The inverse is `sepvit_edge.model.unfold`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ..dense.backbone import PositionEncoding
from ..reference import (
    MLP,
    ConditionalPositionEncoding,
    DepthwiseSeparableSelfAttention,
    OverlappingPatchEmbedding,
    SepViT,
    SepViTBlock,
)
from ..variants import HEAD_DIM
from .weights import (
    BlockWeights,
    DSAWeights,
    EmbeddingWeights,
    HeadWeights,
    LayerWeights,
    MLPWeights,
    ModelWeights,
    NormWeights,
    PSAWeights,
    StageWeights,
    Windows,
)


@torch.no_grad()
def fold(model: SepViT) -> ModelWeights:
    """Fold the weights of a reference model (principles 3 and 4).

    Parameters
    ----------
    model : SepViT
        Its parameters are read, not changed.
    """
    stages = []
    for i, side in enumerate(model.sides):
        embed = cast(OverlappingPatchEmbedding, model.patch_embeds[i])
        blocks = cast(list[SepViTBlock], model.blocks[i])
        stages.append(
            StageWeights(
                (side, side),
                fold_embedding(embed, model.config.preprocessing.std if i == 0 else None),
                [_block(block) for block in blocks],
                fold_encoding(cast(ConditionalPositionEncoding, model.pos_block[i])),
            )
        )
    head = HeadWeights(
        fold_norm(model.norm, affine=False), fold_behind_norm(model.norm, model.head)
    )
    return ModelWeights(model.config.preprocessing.mean, stages, head)


def fold_layer(layer: nn.Linear | nn.Conv2d) -> LayerWeights:
    """Take a layer as it is."""
    return LayerWeights(layer.weight, cast(Tensor, layer.bias))


def fold_norm(norm: nn.LayerNorm, affine: bool = True) -> NormWeights:
    """Take a norm, with its affine part or without."""
    own = LayerWeights(norm.weight, norm.bias) if affine else None
    return NormWeights(norm.weight.numel(), norm.eps, own)


def fold_behind_norm(norm: nn.LayerNorm, linear: nn.Linear) -> LayerWeights:
    """Fold a LayerNorm's affine part into the linear that follows it (principle 4)."""
    weight = linear.weight.double()
    return LayerWeights(weight * norm.weight.double(), linear.bias + weight @ norm.bias.double())


def fold_embedding(
    embed: OverlappingPatchEmbedding, input_std: tuple[float, ...] | None
) -> EmbeddingWeights:
    """Fold the pixels' scale into the first convolution (principle 4); others stay."""
    proj = fold_layer(embed.proj)
    if input_std is not None:
        scale = torch.tensor(input_std, dtype=torch.float64).reshape(1, 3, 1, 1) * 255
        proj = LayerWeights(proj.weight / scale, proj.bias)
    return EmbeddingWeights(proj, fold_norm(embed.norm))


def fold_encoding(cpe: ConditionalPositionEncoding | PositionEncoding) -> LayerWeights:
    """Fold "+ x" into the centre tap of the depthwise convolution (principle 4)."""
    conv = fold_layer(cast(nn.Conv2d, cpe.proj[0]))
    weight = conv.weight.clone()
    weight[:, :, 1, 1] += 1
    return LayerWeights(weight, conv.bias)


def _block(block: SepViTBlock) -> BlockWeights:
    groups = block.side // block.ws
    # Principle 3: the tokens are normalised here, once.
    tokens = block.norm1(block.win_tokens)[0] if block.separable else None
    return BlockWeights(
        Windows(groups, groups, block.ws),
        fold_dsa(block.norm1, block.attn, tokens),
        fold_psa(block.attn) if block.separable else None,
        fold_layer(block.attn.proj),
        fold_mlp(block.norm2, block.mlp),
    )


def fold_dsa(
    norm: nn.LayerNorm, attention: DepthwiseSeparableSelfAttention, tokens: Tensor | None
) -> DSAWeights:
    """Fold norm1 and DSA, with normed window tokens (n, 1, C)."""
    q, k, v = _split(attention.DSA_qkv, 3)  # principle 5
    return DSAWeights(fold_norm(norm), _scaled(q), k, v, tokens)


def fold_mlp(norm: nn.LayerNorm, mlp: MLP) -> MLPWeights:
    """Fold norm2 and the two linears behind it."""
    return MLPWeights(
        fold_norm(norm, affine=False), fold_behind_norm(norm, mlp.fc1), fold_layer(mlp.fc2)
    )


def fold_psa(attention: DepthwiseSeparableSelfAttention) -> PSAWeights:
    """Fold the norm, q and k of PSA."""
    q, k = _split(attention.PSA_qk, 2)  # principle 5
    return PSAWeights(fold_norm(attention.win_tokens_norm), _scaled(q), k)


def _split(linear: nn.Linear, count: int) -> list[LayerWeights]:
    """Cut a linear's outputs into equal parts."""
    pairs = zip(linear.weight.chunk(count), linear.bias.chunk(count), strict=True)
    return [LayerWeights(weight, bias) for weight, bias in pairs]


def _scaled(q: LayerWeights) -> LayerWeights:
    """Fold the scale of the scores into q (principle 4)."""
    scale = HEAD_DIM**-0.5
    return LayerWeights(q.weight * scale, q.bias * scale)
