"""How the raw outputs of a dense model become a class map, boxes or masks: facts of the manifest.

`sepvit_edge.postprocess` is the rule in NumPy, operation by operation; the apps repeat it bit for
bit. These are its parameters.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..config.toml import Strict
from ..model.dense.config import BOX_CELLS, DETECTIONS, MASK_CELLS, PROPOSALS

# 4 * 2^(i/3), written out: powers are not rounded alike in all languages.
_SCALES = (4.0, 5.039684199579493, 6.3496042078727974)
# log(1000 / 16): a box is at most 62.5 times as wide or high as its anchor, or as narrow or low.
_SIZE_DELTA_LIMIT = 4.135166556742356

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class SegmentationRule(Strict):
    """Class logits (1, classes, H / stride, W / stride) -> the class of each pixel (H, W).

    Attributes
    ----------
    task : str
        Always ``"segmentation"``.
    stride : int
        Input pixels per logit, along either axis.
    upsampling : str
        Bilinear between the centres of pixels; the outermost logits continue to the border.
    choice : str
        The class with the largest logit; of equal ones the lowest class.
    """

    task: Literal["segmentation"] = "segmentation"
    stride: int = Field(4, ge=1)
    upsampling: Literal["bilinear-half-pixel"] = "bilinear-half-pixel"
    choice: Literal["largest-lowest-class"] = "largest-lowest-class"


class AnchorRule(Strict):
    """Class logits (1, A, classes) and box deltas (1, A, 4) -> boxes with class and score.

    The A anchors go level by level, then row by row, then by ratio, then by scale.

    Attributes
    ----------
    strides : tuple of int
        Input pixels per position, for each level; a level has ceil(side / stride) positions.
    ratios : tuple of float
        Height / width of the anchors.
    scales : tuple of float
        Side of a square anchor / stride.
    size_delta_limit : float
        The deltas of width and height are clipped to plus and minus this.
    scores : str
        Each class has its own sigmoid.
    score_threshold : float
        Scores up to this, it included, are dropped.
    level_candidates : int
        Each level keeps this number of its best scores.
    iou_threshold : float
        A box is dropped that overlaps a better one of its class by more than this
        (intersection over union).
    max_detections : int
        Largest number of boxes.
    """

    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field((8, 16, 32, 64, 128), min_length=1)
    ratios: tuple[_Positive, ...] = Field((0.5, 1.0, 2.0), min_length=1)
    scales: tuple[_Positive, ...] = Field(_SCALES, min_length=1)
    size_delta_limit: _Positive = _SIZE_DELTA_LIMIT
    scores: Literal["sigmoid"] = "sigmoid"
    score_threshold: _Share = 0.05
    level_candidates: int = Field(1000, ge=1)
    iou_threshold: _Share = 0.5
    max_detections: int = Field(100, ge=1)


class DetectionRule(AnchorRule):
    """The boxes of a detector with one stage; see `AnchorRule`.

    Attributes
    ----------
    task : str
        Always ``"detection"``.
    """

    task: Literal["detection"] = "detection"


_PROPOSALS = AnchorRule(
    strides=(4, 8, 16, 32, 64),
    scales=(8.0,),
    score_threshold=0.0,
    iou_threshold=0.7,
    max_detections=PROPOSALS,
)


class TwoStageRule(Strict):
    """Proposals, features of each, boxes with class and score, a mask of each box.

    `sepvit_edge.postprocess.two_stage` has the steps.

    Attributes
    ----------
    task : str
        Always ``"instance-segmentation"``.
    proposals : AnchorRule
        Boxes of the first stage, of one class; they are suppressed within each level alone.
    pyramid_strides : tuple of int
        Input pixels per position of the levels that features are taken from.
    coarser_from : float
        Side of a square region in pixels from which its features come from the second level; the
        third from twice this, and so on.
    alignment : str
        Features of a cell: the mean of bilinear samples, centres of pixels at halves, and
        ceil(side / cells) samples along each axis of a cell (RoIAlign).
    box_cells, mask_cells : int
        Cells on a side of a region's features, for its box and for its mask.
    box_delta_scales : tuple of float
        Factors of the four deltas of the second stage.
    size_delta_limit : float
        The scaled deltas of width and height are clipped to plus and minus this.
    scores : str
        Softmax over the classes and the background, which is the last.
    score_threshold, iou_threshold, max_detections : float, float, int
        As in `AnchorRule`, for the boxes of the second stage.
    mask_threshold : float
        A pixel belongs to an object from this probability on: the sigmoid of the mask of its
        class, bilinear between the centres of cells, 0 outside.
    """

    task: Literal["instance-segmentation"] = "instance-segmentation"
    proposals: AnchorRule = _PROPOSALS
    pyramid_strides: tuple[Annotated[int, Field(ge=1)], ...] = Field((4, 8, 16, 32), min_length=1)
    coarser_from: _Positive = 112.0
    alignment: Literal["mean-of-bilinear-half-pixel"] = "mean-of-bilinear-half-pixel"
    box_cells: int = Field(BOX_CELLS, ge=1)
    mask_cells: int = Field(MASK_CELLS, ge=1)
    box_delta_scales: tuple[_Positive, _Positive, _Positive, _Positive] = (0.1, 0.1, 0.2, 0.2)
    size_delta_limit: _Positive = _SIZE_DELTA_LIMIT
    scores: Literal["softmax-background-last"] = "softmax-background-last"
    score_threshold: _Share = 0.05
    iou_threshold: _Share = 0.5
    max_detections: int = Field(DETECTIONS, ge=1)
    mask_threshold: _Share = 0.5


PostprocessingRule = Annotated[
    SegmentationRule | DetectionRule | TwoStageRule, Field(discriminator="task")
]
