"""A dense model: backbone, neck and head, from its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SepViTError
from ..reference import OverlappingPatchEmbedding, SepViT
from ..variants import Source
from .backbone import DenseBackbone
from .config import BOX_CELLS, DETECTIONS, MASK_CELLS, PROPOSALS, DenseConfig
from .mask_rcnn import LEVELS, RoIHead, RPNHead
from .neck import FPN
from .retinanet import EXTRA_LEVELS, FIRST_MAP, RetinaNetHead
from .semantic_fpn import SemanticFPNHead
from .upernet import UperNetHead

if TYPE_CHECKING:
    from ..quantized import Quantization

_ATTENTION = ("bmm", "baddbmm")  # products of two activations, as torch's counter names them


class DenseModel(nn.Module):
    """The network of a configuration.

    Parameters
    ----------
    config : DenseConfig
        Task, head, variant, classes, input size, windows, preprocessing and labels.
    drop_path : float
        Rate of the backbone's last block; it rises linearly from 0 at the first.
    """

    def __init__(self, config: DenseConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.source: Source | None = None
        self.quantization: Quantization | None = None  # if the weights are rounded to it
        self.backbone = DenseBackbone(config.variant, config.window_side, drop_path)
        dims, width, classes = self.backbone.dims, config.channels, config.num_classes
        if config.head == "semantic-fpn":
            self.neck = FPN(dims, width)
            self.decode_head: SemanticFPNHead | UperNetHead = SemanticFPNHead(width, classes)
        elif config.head == "upernet":
            self.decode_head = UperNetHead(dims, width, classes)
        elif config.head == "mask-rcnn":
            self.neck = FPN(dims, width, pooled=True)
            self.rpn_head = RPNHead(width)
            self.roi_head = RoIHead(width, classes)
        else:
            self.neck = FPN(dims, width, FIRST_MAP, EXTRA_LEVELS)
            self.bbox_head = RetinaNetHead(width, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Predict from normalised images, of the configured size or another.

        Parameters
        ----------
        x : Tensor
            (B, 3, H, W), normalised; H and W are multiples of 32.

        Returns
        -------
        Tensor or tuple of Tensor
            Segmentation: logits (B, classes, H / 4, W / 4). Detection: class logits
            (B, A, classes) and box deltas (B, A, 4), levels of stride 8 to 128 in order, within
            each rows, columns, then the nine anchors of a position. Of Mask R-CNN the first stage:
            logits (B, A, 1) and box deltas (B, A, 4) of the proposals, levels of stride 4 to 64
            and three anchors, then the levels of stride 4 to 32. `roi_head` has the other stages.
        """
        maps = self.backbone(x)
        if self.config.head == "upernet":
            return self.decode_head(maps)
        levels = self.neck(maps)
        if self.config.head == "semantic-fpn":
            return self.decode_head(levels)
        if self.config.head == "mask-rcnn":
            return (*self.rpn_head(levels), *levels[:LEVELS])
        return self.bbox_head(levels)


def with_dense_config(model: DenseModel, config: DenseConfig) -> DenseModel:
    """Return the same weights under another configuration, for example another input size.

    No weight depends on input size or windows. The weights are shared with `model`, not copied.
    """
    with torch.device("meta"):
        twin = DenseModel(config)
    twin.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    return twin.train(model.training)


@torch.no_grad()
def from_classifier(classifier: SepViT, config: DenseConfig, images: Tensor) -> DenseModel:
    """Create a dense model whose backbone has a classifier's weights.

    The classifier has no norm behind a stage. Each one starts as what undoes it best: the affine
    part that brings the normed map nearest the map itself, by least squares a channel. Maps are
    then divided by their deviation: a classifier's maps have values of a hundred and more, from
    which a new neck would not learn. The next patch embedding ends in a norm, so that only its bias
    must follow. (Its weights times the deviation would give the same, and be too large to learn.)

    Parameters
    ----------
    classifier : SepViT
        Its window tokens, last norm and classes are left out.
    config : DenseConfig
        Of the same variant, mean and std.
    images : Tensor
        (B, 3, H, W), normalised, a few of the kind that the model will see; H and W are multiples
        of 32.

    Returns
    -------
    DenseModel
        In training mode; its neck and head have new random weights.

    Raises
    ------
    SepViTError
        If variant, mean or std are not the classifier's.
    """
    theirs = classifier.config
    if theirs.variant != config.variant:
        raise SepViTError(
            f"the weights are of variant {theirs.variant}; a backbone {config.variant} cannot "
            "start from them"
        )
    rules = theirs.preprocessing, config.preprocessing
    if rules[0].mean != rules[1].mean or rules[0].std != rules[1].std:
        raise SepViTError(
            "mean and std of a dense model must be those of the weights it starts from"
        )
    model = DenseModel(config)
    own = model.backbone.state_dict()
    shared = {key: value for key, value in classifier.state_dict().items() if key in own}
    model.backbone.load_state_dict(own | shared)
    model.eval()
    for stage, (norm, stream) in enumerate(model.backbone.streams(images)):
        rows = stream.flatten(0, 2)
        normed = F.layer_norm(rows, norm.normalized_shape, eps=norm.eps)
        centred = normed - normed.mean(0)
        slope = (centred * rows).mean(0) / centred.square().mean(0).clamp(min=1e-12)
        size = rows.std().clamp(min=1e-6)
        norm.weight.copy_(slope / size)
        norm.bias.copy_((rows.mean(0) - slope * normed.mean(0)) / size)
        if stage + 1 < len(model.backbone.patch_embeds):
            following = cast(OverlappingPatchEmbedding, model.backbone.patch_embeds[stage + 1])
            assert following.proj.bias is not None
            following.proj.bias.div_(size)
    return model.train()


def count_macs(model: DenseModel, attention: bool = True) -> int:
    """Count the multiply-accumulates of one image of the configured size.

    Of Mask R-CNN with 1000 proposals and 100 masks, the most that an image can have.

    Parameters
    ----------
    model : DenseModel
        Only its configuration is read.
    attention : bool
        Whether the products of attention count. The paper's figures leave them out.
    """
    with torch.device("meta"):
        twin = DenseModel(model.config)
        image = torch.empty(1, 3, *model.config.input_size)
        macs = module_macs(twin, image, attention)
        if model.config.head == "mask-rcnn":
            width, head = model.config.channels, twin.roi_head
            box = torch.empty(PROPOSALS, width, BOX_CELLS, BOX_CELLS)
            mask = torch.empty(DETECTIONS, width, MASK_CELLS, MASK_CELLS)
            macs += module_macs(head.bbox_head, box) + module_macs(head.mask_head, mask)
        return macs


def module_macs(module: nn.Module, x: Tensor | list[Tensor], attention: bool = True) -> int:
    """Count the multiply-accumulates of a module: half of torch's count of FLOPs."""
    from torch.utils.flop_counter import FlopCounterMode

    module.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    counts = counter.get_flop_counts()["Global"]
    return (
        sum(
            flops
            for operation, flops in counts.items()
            if attention or not any(name in str(operation) for name in _ATTENTION)
        )
        // 2
    )
