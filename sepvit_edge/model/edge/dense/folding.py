"""Weights of a dense reference, folded for its edge form: the only code that reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from ...dense import DenseModel
from ...dense.backbone import DenseBlock, PositionEncoding
from ...dense.layers import ConvNormReLU, PlainConv
from ...dense.mask_rcnn import BoxHead, MaskHead, RPNHead
from ...dense.neck import FPN
from ...dense.retinanet import RetinaNetHead
from ...dense.semantic_fpn import SemanticFPNHead
from ...dense.upernet import UperNetHead
from ...reference import STRIDES, OverlappingPatchEmbedding
from ..folding import (
    fold_dsa,
    fold_embedding,
    fold_encoding,
    fold_layer,
    fold_mlp,
    fold_norm,
    fold_psa,
)
from ..weights import BlockWeights, LayerWeights, Sides, StageWeights, Windows
from .weights import (
    BoxHeadWeights,
    DenseHeadWeights,
    DenseWeights,
    FPNWeights,
    MaskHeadWeights,
    RetinaNetWeights,
    RPNWeights,
    SemanticFPNWeights,
    UperNetWeights,
)


@torch.no_grad()
def fold_dense(model: DenseModel) -> DenseWeights:
    """Fold the weights of a dense model for its configured input size.

    Parameters
    ----------
    model : DenseModel
        In evaluation mode; its parameters are read, not changed.
    """
    height, width = model.config.input_size
    backbone, rule = model.backbone, model.config.preprocessing
    stages = []
    for i, stride in enumerate(STRIDES):
        sides = height // stride, width // stride
        embed = cast(OverlappingPatchEmbedding, backbone.patch_embeds[i])
        blocks = cast(list[DenseBlock], backbone.blocks[i])
        stages.append(
            StageWeights(
                sides,
                fold_embedding(embed, rule.std if i == 0 else None),
                [_block(block, sides) for block in blocks],
                fold_encoding(cast(PositionEncoding, backbone.pos_block[i])),
            )
        )
    norms = [fold_norm(cast(nn.LayerNorm, norm)) for norm in backbone.norm_list]
    neck = None if model.config.head == "upernet" else _fpn(model.neck)
    return DenseWeights(rule.mean, stages, norms, neck, _head(model))


def _head(model: DenseModel) -> DenseHeadWeights:
    if model.config.head == "retinanet":
        return _retinanet(model.bbox_head)
    if model.config.head == "mask-rcnn":
        return _rpn(model.rpn_head)
    head = model.decode_head
    return _upernet(head) if isinstance(head, UperNetHead) else _semantic_fpn(head)


def _block(block: DenseBlock, sides: Sides) -> BlockWeights:
    ws = block.ws
    windows = Windows(-(-sides[0] // ws), -(-sides[1] // ws), ws, (-sides[0] % ws, -sides[1] % ws))
    tokens = block.norm1.bias.repeat(windows.count, 1, 1)  # principle 12
    proj = fold_layer(block.attn.proj)
    if windows.count == 1:  # principle 13
        proj = LayerWeights(2 * proj.weight, proj.bias)
    return BlockWeights(
        windows,
        fold_dsa(block.norm1, block.attn, tokens),
        fold_psa(block.attn) if windows.count > 1 else None,
        proj,
        fold_mlp(block.norm2, block.mlp),
    )


def _linear(conv: LayerWeights) -> LayerWeights:
    """A 1 x 1 convolution as a linear of rows."""
    return LayerWeights(conv.weight[:, :, 0, 0], conv.bias)


def _plain(convs: Iterable[nn.Module]) -> list[LayerWeights]:
    return [fold_layer(cast(PlainConv, conv).conv) for conv in convs]


def _normed(conv: nn.Module) -> LayerWeights:
    """Fold a batch norm into the convolution in front of it (principle 17)."""
    assert isinstance(conv, ConvNormReLU)
    norm = conv.bn
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = conv.conv.weight.double() * scale.reshape(-1, 1, 1, 1)
    return LayerWeights(weight, norm.bias - norm.running_mean.double() * scale)


def _fpn(neck: FPN) -> FPNWeights:
    lateral = [_linear(conv) for conv in _plain(neck.lateral_convs)]
    levels = _plain(neck.fpn_convs)
    own, extra = levels[: len(lateral)], levels[len(lateral) :]
    return FPNWeights(neck.first, lateral, own, extra, neck.pooled)


def _semantic_fpn(head: SemanticFPNHead) -> SemanticFPNWeights:
    levels = [
        [_normed(layer) for layer in cast(nn.Sequential, level) if isinstance(layer, ConvNormReLU)]
        for level in head.scale_heads
    ]
    return SemanticFPNWeights(levels, fold_layer(head.conv_seg))


def _upernet(head: UperNetHead) -> UperNetWeights:
    return UperNetWeights(
        [_linear(_normed(cast(nn.Sequential, pool)[1])) for pool in head.psp_modules],
        _normed(head.bottleneck),
        [_linear(_normed(conv)) for conv in head.lateral_convs],
        [_normed(conv) for conv in head.fpn_convs],
        _normed(head.fpn_bottleneck),
        fold_layer(head.conv_seg),
    )


def _retinanet(head: RetinaNetHead) -> RetinaNetWeights:
    return RetinaNetWeights(
        head.num_classes,
        _plain(head.cls_convs),
        _plain(head.reg_convs),
        fold_layer(head.retina_cls),
        fold_layer(head.retina_reg),
    )


def _rpn(head: RPNHead) -> RPNWeights:
    classes, boxes = (_linear(fold_layer(conv)) for conv in (head.rpn_cls, head.rpn_reg))
    return RPNWeights(fold_layer(head.rpn_conv), classes, boxes)


def fold_box_head(head: BoxHead) -> BoxHeadWeights:
    """Read the weights of Mask R-CNN's second stage."""
    shared = [fold_layer(cast(nn.Linear, layer)) for layer in head.shared_fcs]
    return BoxHeadWeights(shared, fold_layer(head.fc_cls), fold_layer(head.fc_reg))


def fold_mask_head(head: MaskHead) -> MaskHeadWeights:
    """Fold the weights of Mask R-CNN's third stage (principle 19)."""
    upsample = head.upsample
    assert upsample.bias is not None
    weight = upsample.weight.permute(2, 3, 1, 0).flatten(0, 2)[..., None, None]
    places = LayerWeights(weight, upsample.bias.repeat(4))
    return MaskHeadWeights(_plain(head.convs), places, fold_layer(head.conv_logits))


def pooling_matrix(sides: Sides, cells: int) -> Tensor:
    """Return adaptive average pooling as a matrix (cells * cells, h * w)."""
    h, w = sides
    eye = torch.eye(h * w).reshape(h * w, 1, h, w)
    return nn.functional.adaptive_avg_pool2d(eye, cells).reshape(h * w, -1).T.contiguous()


def resize_matrix(cells: int, sides: Sides) -> Tensor:
    """Return bilinear resizing from cells on a side as a matrix (h * w, cells * cells)."""
    eye = torch.eye(cells**2).reshape(-1, 1, cells, cells)
    grown = nn.functional.interpolate(eye, size=sides, mode="bilinear", align_corners=False)
    return grown.reshape(cells**2, -1).T.contiguous()
