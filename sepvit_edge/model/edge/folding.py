"""Weights of the reference, folded for the edge form: the only code that reads its parameters.

The inverse is `sepvit_edge.model.unfold`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ..reference import (
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
                _embedding(embed, model.config.preprocessing.std if i == 0 else None),
                [_block(block) for block in blocks],
                _position_encoding(cast(ConditionalPositionEncoding, model.pos_block[i])),
            )
        )
    head = HeadWeights(_norm(model.norm, affine=False), _behind_norm(model.norm, model.head))
    return ModelWeights(model.config.preprocessing.mean, stages, head)


def _layer(layer: nn.Linear | nn.Conv2d) -> LayerWeights:
    return LayerWeights(layer.weight, cast(Tensor, layer.bias))


def _norm(norm: nn.LayerNorm, affine: bool = True) -> NormWeights:
    own = LayerWeights(norm.weight, norm.bias) if affine else None
    return NormWeights(norm.weight.numel(), norm.eps, own)


def _behind_norm(norm: nn.LayerNorm, linear: nn.Linear) -> LayerWeights:
    """Fold a LayerNorm's affine part into the linear that follows it (principle 4)."""
    weight = linear.weight.double()
    return LayerWeights(weight * norm.weight.double(), linear.bias + weight @ norm.bias.double())


def _embedding(
    embed: OverlappingPatchEmbedding, input_std: tuple[float, ...] | None
) -> EmbeddingWeights:
    """Fold the pixels' scale into the first convolution (principle 4); others stay."""
    proj = _layer(embed.proj)
    if input_std is not None:
        scale = torch.tensor(input_std, dtype=torch.float64).reshape(1, 3, 1, 1) * 255
        proj = LayerWeights(proj.weight / scale, proj.bias)
    return EmbeddingWeights(proj, _norm(embed.norm))


def _position_encoding(cpe: ConditionalPositionEncoding) -> LayerWeights:
    """Fold "+ x" into the centre tap of the depthwise convolution (principle 4)."""
    conv = _layer(cast(nn.Conv2d, cpe.proj[0]))
    weight = conv.weight.clone()
    weight[:, :, 1, 1] += 1
    return LayerWeights(weight, conv.bias)


def _block(block: SepViTBlock) -> BlockWeights:
    groups = block.side // block.ws
    return BlockWeights(
        Windows(groups, groups, block.ws),
        _dsa(block),
        _psa(block.attn) if block.separable else None,
        _layer(block.attn.proj),
        MLPWeights(
            _norm(block.norm2, affine=False),
            _behind_norm(block.norm2, block.mlp.fc1),
            _layer(block.mlp.fc2),
        ),
    )


def _dsa(block: SepViTBlock) -> DSAWeights:
    # Principle 3: the tokens are normalised here, once.
    tokens = block.norm1(block.win_tokens)[0] if block.separable else None
    q, k, v = _split(block.attn.DSA_qkv, 3)  # principle 5
    return DSAWeights(_norm(block.norm1), _scaled(q), k, v, tokens)


def _psa(attention: DepthwiseSeparableSelfAttention) -> PSAWeights:
    q, k = _split(attention.PSA_qk, 2)  # principle 5
    return PSAWeights(_norm(attention.win_tokens_norm), _scaled(q), k)


def _split(linear: nn.Linear, count: int) -> list[LayerWeights]:
    """Cut a linear's outputs into equal parts."""
    pairs = zip(linear.weight.chunk(count), linear.bias.chunk(count), strict=True)
    return [LayerWeights(weight, bias) for weight, bias in pairs]


def _scaled(q: LayerWeights) -> LayerWeights:
    """Fold the scale of the scores into q (principle 4)."""
    scale = HEAD_DIM**-0.5
    return LayerWeights(q.weight * scale, q.bias * scale)
