"""The block of rows.py on a map of any sides, padded to whole windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import rows
from ..weights import BlockWeights, DSAWeights, PSAWeights, Windows

if TYPE_CHECKING:
    from ..form import Form
    from ..taps import Taps

# Above this the identity of PSA costs more than adding the pixels (principle 14).
IDENTITY_WINDOWS = 64


class DSA(rows.DSA):
    """norm1 on the map, padding, windows, tokens; attention as in rows.py."""

    def __init__(self, form: Form, weights: DSAWeights, windows: Windows, batch: int) -> None:
        super().__init__(form, weights, windows, batch)
        assert weights.norm.affine is not None
        self.windows = windows
        (height, _), (down, right) = windows.map, windows.padding
        pad = weights.norm.affine.bias.detach().float()  # principle 12
        self.right = nn.Buffer(pad.repeat(height, right)) if right else None
        self.bottom = nn.Buffer(pad.repeat(down, windows.columns * windows.side)) if down else None

    def forward(self, x: Tensor) -> Tensor:
        """(H W, C) in map order -> (n T, C)."""
        return self.attended(self.with_tokens(self.cut(self.padded(self.norm(x)))))

    def padded(self, x: Tensor) -> Tensor:
        """(H W, C) normed -> (rows ws columns ws, C)."""
        C, (height, width) = x.shape[1], self.windows.map
        if self.right is not None:
            x = torch.cat((x.reshape(height, width * C), self.right), 1)
        if self.bottom is not None:
            x = torch.cat((x.reshape(height, -1), self.bottom), 0)
        return x.reshape(-1, C)

    def cut(self, x: Tensor) -> Tensor:
        """Rows in map order -> window order."""
        windows = self.windows
        if windows.count == 1:
            return x
        return rows.swap(x, windows.rows, windows.side, windows.columns, windows.side)


class ManyWindowsPSA(rows.PSA):
    """Attention among windows, with the pixels added behind it (principle 14)."""

    def __init__(self, form: Form, weights: PSAWeights, windows: Windows, batch: int) -> None:
        super().__init__(form, weights, windows, batch)
        del self.identity

    def forward(self, x: Tensor) -> Tensor:
        """(n T, C) -> (n M, C)."""
        C = x.shape[1]
        x = x.reshape(self.windows, -1, C)
        return self.mixture(self.attention(x), x) + x[:, 1:].reshape(-1, C)


def psa(form: Form, weights: PSAWeights, windows: Windows, batch: int) -> rows.PSA:
    """Make the attention among windows that fits their number."""
    kind = rows.PSA if windows.count <= IDENTITY_WINDOWS else ManyWindowsPSA
    return kind(form, weights, windows, batch)


class Block(rows.Block):
    """One SepViT block; only its attention sees windows and padding."""

    def __init__(self, form: Form, weights: BlockWeights, batch: int) -> None:
        super().__init__(form, weights, batch)
        self.tokens = weights.windows.pixels + 1

    def cropped(self, x: Tensor) -> Tensor:
        """(n M, C) in window order -> (H W, C) in map order."""
        C, (height, width), (down, right) = x.shape[1], self.windows.map, self.windows.padding
        x = self.joined(x)
        if down:
            x = x.reshape(height + down, -1)[:height].reshape(-1, C)
        if right:
            x = x.reshape(height, -1)[:, : width * C].reshape(-1, C)
        return x

    def forward(self, x: Tensor, taps: Taps, name: str) -> Tensor:
        """(H W, C) -> (H W, C)."""
        C = x.shape[1]
        y = self.dsa(x)
        taps.keep(f"{name}.dsa", y)
        if self.psa is None:
            y = y.reshape(-1, self.tokens, C)[:, 1:].reshape(-1, C)  # principle 13
        else:
            y = self.psa(y)
            taps.keep(f"{name}.psa", y)
        x = x + self.proj(self.cropped(y))
        taps.keep(f"{name}.proj", x)
        x = x + self.mlp(x)
        taps.keep(f"{name}.mlp", x)
        return x
