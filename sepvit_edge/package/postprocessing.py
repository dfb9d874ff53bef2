"""How the raw outputs of a dense model become a class map or boxes: facts of the manifest.

`sepvit_edge.postprocess` is the rule in NumPy, operation by operation; the apps repeat it bit for
bit. These are its parameters.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..config.toml import Strict

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


class DetectionRule(Strict):
    """Class logits (1, A, classes) and box deltas (1, A, 4) -> boxes with class and score.

    The A anchors go level by level, then row by row, then by ratio, then by scale.

    Attributes
    ----------
    task : str
        Always ``"detection"``.
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

    task: Literal["detection"] = "detection"
    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field((8, 16, 32, 64, 128), min_length=1)
    ratios: tuple[_Positive, ...] = Field((0.5, 1.0, 2.0), min_length=1)
    scales: tuple[_Positive, ...] = Field(_SCALES, min_length=1)
    size_delta_limit: _Positive = _SIZE_DELTA_LIMIT
    scores: Literal["sigmoid"] = "sigmoid"
    score_threshold: _Share = 0.05
    level_candidates: int = Field(1000, ge=1)
    iou_threshold: _Share = 0.5
    max_detections: int = Field(100, ge=1)


PostprocessingRule = Annotated[SegmentationRule | DetectionRule, Field(discriminator="task")]
