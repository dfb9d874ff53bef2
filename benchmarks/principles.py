"""The edge form with one of its principles undone, to measure what each is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from sepvit_edge.model import edge
from sepvit_edge.model.variants import HEAD_DIM


def windows_of_rank_6(self: edge.Block, x: Tensor, first: int, second: int) -> Tensor:
    """Principle 1 undone: every axis of a window gets one of the tensor."""
    if self.groups == 1:
        return x
    C, g, ws = x.shape[1], self.groups, self.ws
    inner = (g, ws, g, ws) if first == ws else (g, g, ws, ws)
    return x.reshape(self.batch, *inner, C).permute(0, 1, 3, 2, 4, 5).reshape(-1, C)


def tokens_through_norm1(self: edge.DSA, x: Tensor) -> Tensor:
    """Principle 3 undone: window tokens are normalised at every call."""
    C, n, T = x.shape[1], self.count, self.tokens
    if self.separable:
        x = torch.cat((self.window_tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)
    return _attend(self, self.norm(x))


def fused_qkv(self: edge.DSA, x: Tensor) -> Tensor:
    """Principle 5 undone: one product for q, k and v, then three slices."""
    C, n, T = x.shape[1], self.count, self.tokens
    x = self.norm(x)
    if self.separable:
        x = torch.cat((self.window_tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)
    weight = torch.cat([part.weight for part in (self.q, self.k, self.v)])
    bias = torch.cat([part.bias for part in (self.q, self.k, self.v)])
    heads = F.linear(x, weight, bias).reshape(n, T, 3 * self.heads, HEAD_DIM).permute(0, 2, 1, 3)
    q, k, v = (part.reshape(-1, T, HEAD_DIM) for part in heads.split(self.heads, 1))
    y = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)
    return y.reshape(n, self.heads, T, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * T, C) + x


def fused_attention(self: edge.DSA, x: Tensor) -> Tensor:
    """Principle 6 undone: `scaled_dot_product_attention` of rank 4."""
    C, n, T = x.shape[1], self.count, self.tokens
    x = self.norm(x)
    if self.separable:
        x = torch.cat((self.window_tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)
    q, k, v = (
        part(x).reshape(n, T, self.heads, HEAD_DIM).permute(0, 2, 1, 3)
        for part in (self.q, self.k, self.v)
    )
    y = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return y.permute(0, 2, 1, 3).reshape(n * T, C) + x


def _attend(self: edge.DSA, x: Tensor) -> Tensor:
    C, n, h, T = x.shape[1], self.count, self.heads, self.tokens
    q = self.q(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * h, T, HEAD_DIM)
    k = self.k(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 3, 1).reshape(n * h, HEAD_DIM, T)
    v = self.v(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * h, T, HEAD_DIM)
    y = torch.bmm(torch.softmax(torch.bmm(q, k), -1), v)
    return y.reshape(n, h, T, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * T, C) + x


def scales_at_run_time(self: edge.DSA, x: Tensor) -> Tensor:
    """Principle 4 undone (the part in attention): the scale is a multiplication of the scores."""
    C, n, h, T = x.shape[1], self.count, self.heads, self.tokens
    x = self.norm(x)
    if self.separable:
        x = torch.cat((self.window_tokens, x.reshape(n, T - 1, C)), 1).reshape(n * T, C)
    q = F.linear(x, self.q.weight * HEAD_DIM**0.5, self.q.bias * HEAD_DIM**0.5)
    q = q.reshape(n, T, h, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * h, T, HEAD_DIM)
    k = self.k(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 3, 1).reshape(n * h, HEAD_DIM, T)
    v = self.v(x).reshape(n, T, h, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * h, T, HEAD_DIM)
    y = torch.bmm(torch.softmax(torch.bmm(q, k) * HEAD_DIM**-0.5, -1), v)
    return y.reshape(n, h, T, HEAD_DIM).permute(0, 2, 1, 3).reshape(n * T, C) + x


def affine_at_run_time(self: edge.MLP, x: Tensor) -> Tensor:
    """Principle 4 undone (the part in the MLP): norm2 scales and shifts by itself."""
    C = x.shape[1]
    x = self.norm(x) * torch.ones(C) + torch.full((C,), 1e-12)
    return self.fc2(F.gelu(self.fc1(x)))


def residual_in_map_order(self: edge.Block, x: Tensor, taps: None, name: str) -> Tensor:
    """Principle 7 undone: windows are joined again before each residual."""
    y = self.dsa(self._permuted(x, self.ws, self.groups))
    if self.psa is not None:
        y = self.psa(y)
    x = x + self._permuted(self.proj(y), self.groups, self.ws)
    return x + self.mlp(x)


# name -> (class, method, replacement)
UNDONE: dict[str, tuple[type, str, Callable[..., Tensor]]] = {
    "1 (rank 4)": (edge.Block, "_permuted", windows_of_rank_6),
    "3 (constant tokens)": (edge.DSA, "forward", tokens_through_norm1),
    "4a (scale in q)": (edge.DSA, "forward", scales_at_run_time),
    "4b (affine in fc1)": (edge.MLP, "forward", affine_at_run_time),
    "5 (split q, k, v)": (edge.DSA, "forward", fused_qkv),
    "6 (bmm)": (edge.DSA, "forward", fused_attention),
    "7 (window order)": (edge.Block, "forward", residual_in_map_order),
}


@contextmanager
def undo(name: str) -> Iterator[None]:
    """Replace the method that carries a principle while the block runs."""
    if not name:
        yield
        return
    owner, method, replacement = UNDONE[name]
    with patch.object(owner, method, replacement):
        yield
