"""The heads, from streams of rows or levels of a pyramid to the model's outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...dense.mask_rcnn import LEVELS
from ...dense.upernet import POOLS
from ..weights import LayerWeights, Sides
from .folding import pooling_matrix, resize_matrix
from .neck import as_map, as_rows
from .weights import RetinaNetWeights, RPNWeights, SemanticFPNWeights, UperNetWeights


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Resize (1, C, h, w) bilinearly, centres of pixels aligned."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _convolutions(layers: list[LayerWeights]) -> nn.ModuleList:
    return nn.ModuleList(layer.convolution(relu=True) for layer in layers)


class SemanticFPN(nn.Module):
    """Each level through its convolutions, doubled after each; then the sum."""

    def __init__(self, weights: SemanticFPNWeights, sides: list[Sides]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_convolutions(level) for level in weights.levels)
        self.classifier = weights.classifier.convolution()

    def forward(self, levels: list[Tensor]) -> tuple[Tensor]:
        """Maps of strides 4 to 32 -> logits (1, classes, H / 4, W / 4)."""
        total: Tensor | None = None
        for index, (convolutions, x) in enumerate(zip(self.levels, levels, strict=True)):
            for conv in convolutions:  # type: ignore[attr-defined]
                x = conv(x)
                if index:
                    x = enlarged(x, 2)
            total = x if total is None else total + x
        return (self.classifier(total),)


class UperNet(nn.Module):
    """Pyramid pooling by products with constants (principle 16), then a pyramid of sums."""

    def __init__(self, weights: UperNetWeights, sides: list[Sides]) -> None:
        super().__init__()
        self.sides, last = sides, sides[-1]
        self.pooling = nn.Buffer(torch.cat([pooling_matrix(last, cells) for cells in POOLS]))
        grown = (nn.Parameter(resize_matrix(cells, last), False) for cells in POOLS)
        self.resizing = nn.ParameterList(grown)
        self.pooled = nn.ModuleList(layer.linear(relu=True) for layer in weights.pooled)
        self.bottleneck = weights.bottleneck.convolution(relu=True)
        self.lateral = nn.ModuleList(layer.linear(relu=True) for layer in weights.lateral)
        self.levels = _convolutions(weights.levels)
        self.fusion = weights.fusion.convolution(relu=True)
        self.classifier = weights.classifier.convolution()

    def forward(self, streams: list[Tensor]) -> tuple[Tensor]:
        """Streams (h w, C) of the stages -> logits (1, classes, H / 4, W / 4)."""
        last = self.bottleneck(as_map(self.pyramid(streams[-1]), self.sides[-1]))
        sums = [
            as_map(f(x), sides)
            for f, x, sides in zip(self.lateral, streams[:-1], self.sides[:-1], strict=True)
        ]
        sums.append(last)
        for i in range(len(sums) - 1, 0, -1):
            sums[i - 1] = sums[i - 1] + enlarged(sums[i], 2)
        levels = [conv(x) for conv, x in zip(self.levels, sums[:-1], strict=True)]
        levels = [enlarged(x, 2**i) if i else x for i, x in enumerate((*levels, last))]
        return (self.classifier(self.fusion(torch.cat(levels, 1))),)

    def pyramid(self, x: Tensor) -> Tensor:
        """(h w, C) -> (h w, C + pools * channels)."""
        cells = F.linear(x.permute(1, 0), self.pooling).permute(1, 0)
        parts, start = [x], 0
        for side, linear, resizing in zip(POOLS, self.pooled, self.resizing, strict=True):
            y = linear(cells[start : start + side**2])
            parts.append(F.linear(y.permute(1, 0), resizing).permute(1, 0))
            start += side**2
        return torch.cat(parts, 1)


class RetinaNet(nn.Module):
    """Two towers over every level; anchors of a position are beside each other."""

    def __init__(self, weights: RetinaNetWeights, sides: list[Sides]) -> None:
        super().__init__()
        self.num_classes = weights.num_classes
        self.class_tower = _convolutions(weights.class_tower)
        self.box_tower = _convolutions(weights.box_tower)
        self.classes = weights.classes.convolution()
        self.boxes = weights.boxes.convolution()

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps of the levels -> class logits (1, A, classes), box deltas (1, A, 4)."""
        logits, deltas = [], []
        for level in levels:
            x = y = level
            for classes, boxes in zip(self.class_tower, self.box_tower, strict=True):
                x, y = classes(x), boxes(y)
            logits.append(as_rows(self.classes(x)).reshape(-1, self.num_classes))
            deltas.append(as_rows(self.boxes(y)).reshape(-1, 4))
        return (
            torch.cat(logits).reshape(1, -1, self.num_classes),
            torch.cat(deltas).reshape(1, -1, 4),
        )


class RPN(nn.Module):
    """Proposals of every level, and the levels themselves, for the networks behind."""

    def __init__(self, weights: RPNWeights, sides: list[Sides]) -> None:
        super().__init__()
        self.shared = weights.shared.convolution(relu=True)
        self.classes = weights.classes.linear()
        self.boxes = weights.boxes.linear()

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the levels -> logits (1, A, 1), box deltas (1, A, 4), and four of the maps."""
        rows = [as_rows(self.shared(level)) for level in levels]
        logits = torch.cat([self.classes(x).reshape(-1, 1) for x in rows])
        deltas = torch.cat([self.boxes(x).reshape(-1, 4) for x in rows])
        return logits.reshape(1, -1, 1), deltas.reshape(1, -1, 4), *levels[:LEVELS]
