"""Semantic FPN (arXiv 1901.02446): every level is brought to stride 4, then they are added up."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import ConvNormReLU, initialize_conv, resized_to

LEVELS = 4


class SemanticFPNHead(nn.Module):
    """MMSegmentation's ``FPNHead``.

    Parameters
    ----------
    inputs : int
        Channels of the levels.
    num_classes : int
        Classes.
    """

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        width = inputs // 2
        self.scale_heads = nn.ModuleList()
        for level in range(LEVELS):
            layers: list[nn.Module] = []
            for i in range(max(1, level)):
                layers.append(ConvNormReLU(width if i else inputs, width, 3))
                if level:
                    layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            self.scale_heads.append(nn.Sequential(*layers))
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(width, num_classes, 1)
        initialize_conv(self.conv_seg)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels of strides 4 to 32 -> logits (B, classes, H / 4, W / 4)."""
        total = self.scale_heads[0](levels[0])
        for head, level in zip(list(self.scale_heads)[1:], levels[1:], strict=True):
            total = total + resized_to(head(level), total)
        return self.conv_seg(self.dropout(total))
