"""Losses of dense models: cross entropy of pixels; focal loss and box loss of anchors.

The rules are those of MMSegmentation and MMDetection: their mean over pixels with a class, and
RetinaNet's assignment of anchors to boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.dense.sample import IGNORED
from ...package.postprocessing import DetectionRule
from ...postprocess.detection import anchors

POSITIVE, NEGATIVE = (
    0.5,
    0.4,
)  # overlaps from which an anchor is an object, and up to which it is not
ALPHA, GAMMA = 0.25, 2.0
_BACKGROUND, _UNDECIDED = -1, -2


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute the mean cross entropy over the pixels that have a class.

    Parameters
    ----------
    logits : Tensor
        (B, classes, h, w), resized to the masks.
    masks : Tensor
        uint8 (B, H, W): classes, or `IGNORED`.

    Returns
    -------
    Tensor
        A scalar; 0 where no pixel has a class.
    """
    x = F.interpolate(logits.float(), size=masks.shape[1:], mode="bilinear")
    y = masks.long()
    total = F.cross_entropy(x, y, ignore_index=IGNORED, reduction="sum")
    return total / (y != IGNORED).sum().clamp(min=1)


def focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Compute the sum of the focal loss (Lin et al., arXiv 1708.02002).

    Parameters
    ----------
    logits : Tensor
        (N, classes).
    truth : Tensor
        The same shape: 1 for the class of an anchor, otherwise 0.

    Returns
    -------
    Tensor
        A scalar.
    """
    p = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = p + truth - 2 * p * truth  # 1 - probability of the truth
    weight = (1 - ALPHA) + (2 * ALPHA - 1) * truth
    return (weight * wrong.pow(GAMMA) * entropy).sum()


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute the overlaps (N, M) of boxes (N, 4) and (M, 4): intersection over union."""
    sides = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (sides - torch.maximum(first[:, None, :2], second[None, :, :2])).clamp(min=0)
    shared = sides.prod(2)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def assign(places: Tensor, boxes: Tensor) -> Tensor:
    """Return the box of each anchor, or -1 for background, or -2 for anchors that do not count.

    An anchor belongs to the box that it overlaps most, from 0.5 on; below 0.4 it is background.
    Each box also takes the anchors that overlap it as much as any does, however little; of several
    boxes the last one.

    Parameters
    ----------
    places : Tensor
        (A, 4): left, top, right, bottom of the anchors.
    boxes : Tensor
        (N, 4).

    Returns
    -------
    Tensor
        int64 (A,).
    """
    owner = torch.full((len(places),), _BACKGROUND, device=places.device)
    if not len(boxes):
        return owner
    overlaps = pairwise_iou(boxes, places)
    best, index = overlaps.max(0)
    owner[best >= NEGATIVE] = _UNDECIDED
    owner = torch.where(best >= POSITIVE, index, owner)
    for i, most in enumerate(overlaps.max(1).values):
        if most > 0:
            owner[overlaps[i] == most] = i
    return owner


@dataclass
class AnchorLoss:
    """RetinaNet's loss: focal loss of all anchors, L1 loss of the deltas of those with a box.

    Parameters
    ----------
    rule : DetectionRule
        The anchors.
    size : tuple of int
        Height and width of the model's input.
    box_weight : float
        Weight of the second loss.
    """

    rule: DetectionRule
    size: tuple[int, int]
    box_weight: float = 1.0

    def __post_init__(self) -> None:
        centres = torch.from_numpy(anchors(self.rule, self.size).astype(np.float32))
        half = centres[:, 2:] / 2
        self._centres = centres
        self._corners = torch.cat([centres[:, :2] - half, centres[:, :2] + half], 1)

    def __call__(
        self, outputs: tuple[Tensor, Tensor], truth: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Compute the loss of a batch, a scalar.

        Parameters
        ----------
        outputs : tuple of Tensor
            Class logits (B, A, classes) and box deltas (B, A, 4).
        truth : sequence of tuple
            For each image, boxes (N, 4) in pixels of the input, and their classes (N,).
        """
        logits, deltas = outputs[0].float(), outputs[1].float()
        centres, corners = self._centres.to(logits.device), self._corners.to(logits.device)
        scores = deltas_off = logits.new_zeros(())
        positives = 0
        for i, (boxes, classes) in enumerate(truth):
            owner = assign(corners, boxes)
            has, counts = owner >= 0, owner != _UNDECIDED
            wanted = torch.zeros_like(logits[i])
            wanted[has, classes[owner[has]]] = 1
            scores = scores + focal_loss(logits[i][counts], wanted[counts])
            goal = encode(centres[has], boxes[owner[has]])
            deltas_off = deltas_off + (deltas[i][has] - goal).abs().sum()
            positives += int(has.sum())
        return (scores + self.box_weight * deltas_off) / max(1, positives)


def encode(centres: Tensor, boxes: Tensor) -> Tensor:
    """Return the deltas (N, 4) from anchors to boxes; `sepvit_edge.postprocess` decodes them.

    Parameters
    ----------
    centres : Tensor
        (N, 4): centre x, centre y, width and height of the anchors.
    boxes : Tensor
        (N, 4): left, top, right, bottom.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    shift = ((boxes[:, :2] + boxes[:, 2:]) / 2 - centres[:, :2]) / centres[:, 2:]
    return torch.cat([shift, (sides / centres[:, 2:]).log()], 1)
