"""Plain weights of necks and heads, beside those of the backbone's stages."""

from __future__ import annotations

from dataclasses import dataclass

from ..weights import LayerWeights, NormWeights, StageWeights


@dataclass(frozen=True)
class FPNWeights:
    """A feature pyramid; see `sepvit_edge.model.dense.neck.FPN`.

    Attributes
    ----------
    first : int
        The first map that is read.
    lateral : list of LayerWeights
        Linears, one a map.
    levels, extra : list of LayerWeights
        Convolutions of stride 1, one a map; and of stride 2 on top.
    pooled : bool
        Whether every other pixel of the last level is one more level.
    """

    first: int
    lateral: list[LayerWeights]
    levels: list[LayerWeights]
    extra: list[LayerWeights]
    pooled: bool


@dataclass(frozen=True)
class SemanticFPNWeights:
    """Semantic FPN: the convolutions of each level, then the last layer (a linear)."""

    levels: list[list[LayerWeights]]
    classifier: LayerWeights


@dataclass(frozen=True)
class UperNetWeights:
    """UperNet; all but the 3 x 3 convolutions `bottleneck`, `levels` and `fusion` are linears."""

    pooled: list[LayerWeights]
    bottleneck: LayerWeights
    lateral: list[LayerWeights]
    levels: list[LayerWeights]
    fusion: LayerWeights
    classifier: LayerWeights


@dataclass(frozen=True)
class RetinaNetWeights:
    """RetinaNet: two towers of convolutions, and the last layer of each."""

    num_classes: int
    class_tower: list[LayerWeights]
    box_tower: list[LayerWeights]
    classes: LayerWeights
    boxes: LayerWeights


@dataclass(frozen=True)
class RPNWeights:
    """The first stage of Mask R-CNN: a convolution, and two linears of rows."""

    shared: LayerWeights
    classes: LayerWeights
    boxes: LayerWeights


@dataclass(frozen=True)
class BoxHeadWeights:
    """The second stage of Mask R-CNN: linears."""

    shared: list[LayerWeights]
    classes: LayerWeights
    boxes: LayerWeights


@dataclass(frozen=True)
class MaskHeadWeights:
    """The third stage of Mask R-CNN.

    Attributes
    ----------
    convs : list of LayerWeights
        3 x 3 convolutions.
    places : LayerWeights
        The transposed convolution as one of 1 x 1: outputs by row, column and channel.
    classes : LayerWeights
        The last layer.
    """

    convs: list[LayerWeights]
    places: LayerWeights
    classes: LayerWeights


DenseHeadWeights = SemanticFPNWeights | UperNetWeights | RetinaNetWeights | RPNWeights


@dataclass(frozen=True)
class DenseWeights:
    """A whole dense network; `norms` are those of the stages' outputs."""

    mean: tuple[float, ...]
    stages: list[StageWeights]
    norms: list[NormWeights]
    neck: FPNWeights | None
    head: DenseHeadWeights
