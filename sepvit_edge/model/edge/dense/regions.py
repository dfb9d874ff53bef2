"""The two networks of Mask R-CNN that look at regions, for a fixed number of regions a call.

Beside the principles of the package:

18. Every other pixel of a map (the top level of its pyramid) is half of its rows, then half of
    each: slices without a step, which XNNPACK has.
19. A transposed convolution of 2 x 2 at stride 2 is a 1 x 1 convolution to four times the
    channels, one set for each place in the square: an int8 layer like any other. The places are
    images of their own, which the last layer does not tell apart, until they are put together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...dense import DenseConfig, DenseModel
from ...dense.config import BOX_CELLS, BOX_HEAD, MASK_CELLS, MASK_HEAD
from .folding import fold_box_head, fold_mask_head
from .weights import BoxHeadWeights, MaskHeadWeights

# Regions a call: enough that the weights are read seldom, few enough that little is computed for
# nothing, as the last call of an image is filled up.
BOX_REGIONS, MASK_REGIONS = 100, 10


class RegionModel(nn.Module):
    """A network from features of regions to outputs of each.

    Attributes
    ----------
    name : str
        Name of the graph, and of its folder in a package.
    config : DenseConfig
        The whole model's.
    output_names : tuple of str
        Names of the outputs.
    """

    name: str
    config: DenseConfig
    output_names: tuple[str, ...]
    _shape: tuple[int, int, int, int]

    @property
    def graph(self) -> str:
        """What the names of its layers begin with."""
        return self.name.replace("-", "_")

    @property
    def tap_names(self) -> list[str]:
        """Names of the outputs of parts: none."""
        return []

    def example_input(self) -> Tensor:
        """Return zeros of the shape that `forward` takes."""
        return torch.zeros(self._shape)

    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs."""
        raise NotImplementedError


class _Box(nn.Module):
    """Two linears with ReLU, then one for the classes and one for the boxes."""

    def __init__(self, weights: BoxHeadWeights) -> None:
        super().__init__()
        self.shared = nn.ModuleList(layer.linear(relu=True) for layer in weights.shared)
        self.classes = weights.classes.linear()
        self.boxes = weights.boxes.linear()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.reshape(len(x), -1)
        for layer in self.shared:
            x = layer(x)
        return self.classes(x), self.boxes(x)


class BoxHeadModel(RegionModel):
    """Classes and boxes of regions."""

    name = BOX_HEAD
    output_names = ("region_class_logits", "region_box_deltas")

    def __init__(self, model: DenseModel) -> None:
        super().__init__()
        self.config = model.config
        self._shape = BOX_REGIONS, model.config.channels, BOX_CELLS, BOX_CELLS
        self.box_head = _Box(fold_box_head(model.roi_head.bbox_head))
        self.eval()

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, 7, 7) -> logits (N, classes + 1), box deltas (N, 4 classes)."""
        return self.box_head(regions)

    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs."""
        classes = self.config.num_classes
        return [(BOX_REGIONS, classes + 1), (BOX_REGIONS, 4 * classes)]


class _Mask(nn.Module):
    """Convolutions, the enlargement as channels, and the logits of each place (principle 19)."""

    def __init__(self, weights: MaskHeadWeights) -> None:
        super().__init__()
        self.convs = nn.ModuleList(layer.convolution(relu=True) for layer in weights.convs)
        self.places = weights.places.convolution(relu=True)
        self.classifier = weights.classes.convolution()

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        n, channels, height, width = x.shape
        x = self.classifier(self.places(x).reshape(4 * n, channels, height, width))
        # Pixels of a row from left and right, then rows from above and below.
        x = x.reshape(2 * n, 2, -1, width).permute(0, 2, 3, 1).reshape(2 * n, -1, 2 * width)
        x = x.reshape(n, 2, -1, 2 * width).permute(0, 2, 1, 3)
        return x.reshape(n, -1, 2 * height, 2 * width)


class MaskHeadModel(RegionModel):
    """Masks of regions, one a class."""

    name = MASK_HEAD
    output_names = ("region_mask_logits",)

    def __init__(self, model: DenseModel) -> None:
        super().__init__()
        self.config = model.config
        self._shape = MASK_REGIONS, model.config.channels, MASK_CELLS, MASK_CELLS
        self.mask_head = _Mask(fold_mask_head(model.roi_head.mask_head))
        self.eval()

    def forward(self, regions: Tensor) -> Tensor:
        """(N, C, 14, 14) -> logits (N, classes, 28, 28)."""
        return self.mask_head(regions)

    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs."""
        return [(MASK_REGIONS, self.config.num_classes, 2 * MASK_CELLS, 2 * MASK_CELLS)]


def graph_of(layer: str) -> str:
    """Return the graph of a layer by its name, as `RegionModel.graph`; empty for the first one."""
    first = layer.partition(".")[0]
    return first if first.replace("_", "-") in (BOX_HEAD, MASK_HEAD) else ""


def region_models(model: DenseModel) -> list[RegionModel]:
    """Make the edge forms of the networks that look at regions; none for a model of one stage."""
    if model.config.head != "mask-rcnn":
        return []
    return [BoxHeadModel(model), MaskHeadModel(model)]
