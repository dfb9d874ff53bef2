"""The edge form with one of its principles undone, to measure what each is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sepvit_edge.model.edge import Form, rows
from sepvit_edge.model.edge.network import Taps
from sepvit_edge.model.variants import HEAD_DIM


class RankSixBlock(rows.Block):
    """Principle 1 undone: every axis of a window is an axis of the tensor."""

    def swapped(self, x: Tensor, first: int, second: int) -> Tensor:
        """Swap the inner axes of (B, rows of windows, first, second, ws, C)."""
        C, windows = x.shape[1], self.windows
        x = x.reshape(self.batch, windows.rows, first, second, windows.side, C)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, C)


class AttentionInFull(rows.DSA):
    """Attention as in `rows.DSA`, in three steps that the classes below replace."""

    def tokens_of(self, x: Tensor) -> Tensor:
        """(B n M, C) -> (B n T, C): norm and window tokens."""
        return self.with_tokens(self.norm(x))

    def with_tokens(self, x: Tensor) -> Tensor:
        """Put the window tokens in front of the pixels."""
        if self.window_tokens is None:
            return x
        C, n, T = x.shape[1], self.count, self.tokens
        return torch.cat((self.window_tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)

    def heads_of(self, x: Tensor) -> Tensor:
        """(B n T, C) -> (n, h, T, d)."""
        return x.reshape(self.count, self.tokens, self.heads, HEAD_DIM).permute(0, 2, 1, 3)

    def attention(self, x: Tensor) -> Tensor:
        """(B n T, C) -> (n, h, T, d)."""
        n, h, T = self.count, self.heads, self.tokens
        q = self.heads_of(self.q(x)).reshape(n * h, T, HEAD_DIM)
        k = self.k(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 3, 1).reshape(n * h, HEAD_DIM, T)
        v = self.heads_of(self.v(x)).reshape(n * h, T, HEAD_DIM)
        y = torch.bmm(self.softmax.apply(torch.bmm(q, k), self.ones), v)
        return y.reshape(n, h, T, HEAD_DIM)

    def forward(self, x: Tensor) -> Tensor:
        """(B n M, C) in window order -> (B n T, C)."""
        x = self.tokens_of(x)
        return self.attention(x).permute(0, 2, 1, 3).reshape(x.shape) + x


class TokensThroughNorm(AttentionInFull):
    """Principle 3 undone: window tokens are normalised at every call."""

    def tokens_of(self, x: Tensor) -> Tensor:
        """Norm behind the concatenation; for the time, since the tokens are normalised already."""
        return self.norm(self.with_tokens(x))


class ScaleAtRunTime(AttentionInFull):
    """Principle 4 undone (the part in attention): the scale is a multiplication of the scores."""

    def attention(self, x: Tensor) -> Tensor:
        """(B n T, C) -> (n, h, T, d)."""
        n, h, T = self.count, self.heads, self.tokens
        q = F.linear(x, self.q.weight * HEAD_DIM**0.5, self.q.bias * HEAD_DIM**0.5)
        q = self.heads_of(q).reshape(n * h, T, HEAD_DIM)
        k = self.k(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 3, 1).reshape(n * h, HEAD_DIM, T)
        v = self.heads_of(self.v(x)).reshape(n * h, T, HEAD_DIM)
        scores = torch.bmm(q, k) * HEAD_DIM**-0.5
        return torch.bmm(self.softmax.apply(scores, self.ones), v).reshape(n, h, T, HEAD_DIM)


class FusedQKV(AttentionInFull):
    """Principle 5 undone: one product for q, k and v, then three slices."""

    def attention(self, x: Tensor) -> Tensor:
        """(B n T, C) -> (n, h, T, d)."""
        n, h, T = self.count, self.heads, self.tokens
        weight = torch.cat([part.weight for part in (self.q, self.k, self.v)])
        bias = torch.cat([part.bias for part in (self.q, self.k, self.v)])
        fused = F.linear(x, weight, bias).reshape(n, T, 3 * h, HEAD_DIM).permute(0, 2, 1, 3)
        q, k, v = (part.reshape(-1, T, HEAD_DIM) for part in fused.split(h, 1))
        scores = torch.bmm(q, k.transpose(1, 2))
        return torch.bmm(self.softmax.apply(scores, self.ones), v).reshape(n, h, T, HEAD_DIM)


class FusedAttention(AttentionInFull):
    """Principle 6 undone: `scaled_dot_product_attention` of rank 4."""

    def attention(self, x: Tensor) -> Tensor:
        """(B n T, C) -> (n, h, T, d)."""
        q, k, v = (self.heads_of(linear(x)) for linear in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)


class AffineAtRunTime(rows.MLP):
    """Principle 4 undone (the part in the MLP): norm2 scales and shifts by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) -> (rows, C)."""
        C = x.shape[1]
        x = self.norm(x) * torch.ones(C) + torch.full((C,), 1e-12)
        return self.fc2(F.gelu(self.fc1(x)))


class ResidualInMapOrder(rows.Block):
    """Principle 7 undone: windows are joined again before each residual."""

    def forward(self, x: Tensor, taps: Taps, name: str) -> Tensor:
        """(rows, C) -> (rows, C)."""
        y = self.dsa(self.cut(x))
        if self.psa is not None:
            y = self.psa(y)
        x = x + self.joined(self.proj(y))
        return x + self.mlp(x)


# name -> classes of a form with rows that undo it
UNDONE: dict[str, dict[str, Any]] = {
    "1 (rank 4)": {"block": RankSixBlock},
    "3 (constant tokens)": {"dsa": TokensThroughNorm},
    "4a (scale in q)": {"dsa": ScaleAtRunTime},
    "4b (affine in fc1)": {"mlp": AffineAtRunTime},
    "5 (split q, k, v)": {"dsa": FusedQKV},
    "6 (bmm)": {"dsa": FusedAttention},
    "7 (window order)": {"block": ResidualInMapOrder},
}


def without(form: Form, principle: str) -> Form:
    """Return a form with the class that carries a principle replaced."""
    return replace(form, name=f"{form.name} without {principle}", **UNDONE[principle])
