"""Start a wide variant from a trained narrow one, without changing what it computes.

Net2Net (Chen et al., arXiv 1511.05641): channels are repeated, and the weights that read a channel
are shared out among its copies. SepViT suits it: heads are 32 wide in every variant, so whole heads
are repeated, and a LayerNorm over repeated channels is the same LayerNorm. A large variant then
needs a fraction of the training that it needs from random weights.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import SepViTError
from ..model.reference import SepViT
from ..model.variants import find_variant

# How unevenly weights are shared out among the copies of a channel: equal ones would stay equal.
_SPREAD = 0.3


def widen(model: SepViT, variant: str, seed: int = 0) -> SepViT:
    """Return a wider model that computes the same logits.

    Parameters
    ----------
    model : SepViT
        Trained model.
    variant : str
        Variant with the same depths, and a multiple of the width.
    seed : int
        Seed of the shares.

    Returns
    -------
    SepViT
        In evaluation mode.

    Raises
    ------
    SepViTError
        If the depths differ, or the width is not a multiple.
    """
    narrow, wide = find_variant(model.config.variant), find_variant(variant)
    copies, rest = divmod(wide.width, narrow.width)
    if rest or narrow.depths != wide.depths:
        raise SepViTError(
            f"{wide.name} cannot start from {narrow.name}: it needs the same depths and a multiple "
            "of the width"
        )
    result = SepViT(replace(model.config, variant=wide.key))
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: _widened(key, value, copies, generator) for key, value in model.state_dict().items()
    }
    result.load_state_dict(state)
    return result.eval()


def _widened(key: str, value: Tensor, copies: int, generator: torch.Generator) -> Tensor:
    """Repeat a parameter's outputs, and share its inputs out."""
    if key == "head.bias":
        return value
    if key.endswith("win_tokens"):
        return value.repeat(1, 1, 1, copies)
    if "DSA_qkv" in key or "PSA_qk" in key:  # q, k and v follow each other
        parts = 3 if "DSA_qkv" in key else 2
        pieces = [_repeated(piece, copies) for piece in value.chunk(parts)]
        value = torch.cat(pieces)
    elif key != "head.weight":
        value = _repeated(value, copies)
    reads = value.ndim > 1 and "pos_block" not in key and key != "patch_embeds.0.proj.weight"
    return _shared(value, copies, generator) if reads else value


def _repeated(value: Tensor, copies: int) -> Tensor:
    return value.repeat(copies, *(1,) * (value.ndim - 1))


def _shared(weight: Tensor, copies: int, generator: torch.Generator) -> Tensor:
    """Turn a weight (out, in, ...) into (out, copies * in, ...) whose copies sum up to it."""
    noise = torch.randn(copies, *weight.shape, generator=generator) * _SPREAD
    shares = (1 + noise - noise.mean(0)) / copies
    return torch.cat(list(weight * shares), 1)
