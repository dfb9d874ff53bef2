"""From the weights of an edge form back to those of the reference: the inverse of folding.py."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from .edge import EdgeModel
from .reference import SepViT
from .variants import HEAD_DIM

# Linears of a block that are part of a fused one in the reference.
_FUSED = {"dsa": "attn.DSA_qkv", "psa": "attn.PSA_qk", "proj": "attn.proj"}


def reference_key(layer: str) -> str:
    """Name the reference's weight that a layer of the edge form was made of.

    Parameters
    ----------
    layer : str
        Module name of a linear or convolution in an `EdgeModel`.

    Examples
    --------
    >>> reference_key("stages.2.blocks.4.psa.q")
    'blocks.2.4.attn.PSA_qk.weight'
    >>> reference_key("stages.0.cpe.proj")
    'pos_block.0.proj.0.weight'
    """
    if layer == "head.classifier":
        return "head.weight"
    _, stage, part, *rest = layer.split(".")
    if part == "patch_embedding":
        return f"patch_embeds.{stage}.proj.weight"
    if part == "cpe":
        return f"pos_block.{stage}.proj.0.weight"
    block, part, *_ = rest
    key = _FUSED.get(part, ".".join(rest[1:]))
    return f"blocks.{stage}.{block}.{key}.weight"


def unfold(edge: EdgeModel, model: SepViT) -> dict[str, Tensor]:
    """Return the state dict of the reference model that computes what an edge model computes.

    The affine parts of norm2 and of the last norm cannot be told from the linears behind them any
    more: they are ones and zeros in the result.

    Parameters
    ----------
    edge : EdgeModel
        Of a form with rows; its linears and convolutions need a float `weight` and a `bias`.
    model : SepViT
        The model that it was made of; it gives the window tokens and the norms in front of them.
    """
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}

    def put(key: str, *modules: nn.Module, scales: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        pairs = list(zip(modules, scales, strict=False))
        for name in ("weight", "bias"):
            values = [cast(Tensor, getattr(m, name)).detach().double() / s for m, s in pairs]
            state[f"{key}.{name}"] = torch.cat(values).float()

    q_scale = HEAD_DIM**-0.5
    for i, stage in enumerate(cast(list[Any], edge.stages)):
        embed = f"patch_embeds.{i}"
        put(f"{embed}.proj", stage.patch_embedding.proj)
        put(f"{embed}.norm", stage.patch_embedding.norm)
        put(f"pos_block.{i}.proj.0", stage.cpe.proj)
        state[f"pos_block.{i}.proj.0.weight"][:, :, 1, 1] -= 1
        for j, block in enumerate(stage.blocks):
            key, dsa, psa = f"blocks.{i}.{j}", block.dsa, block.psa
            put(f"{key}.norm1", dsa.norm)
            put(f"{key}.attn.DSA_qkv", dsa.q, dsa.k, dsa.v, scales=(q_scale, 1.0, 1.0))
            if psa is not None:
                put(f"{key}.attn.win_tokens_norm", psa.norm)
                put(f"{key}.attn.PSA_qk", psa.q, psa.k, scales=(q_scale, 1.0))
            put(f"{key}.attn.proj", block.proj)
            put(f"{key}.mlp.fc1", block.mlp.fc1)
            put(f"{key}.mlp.fc2", block.mlp.fc2)
            state[f"{key}.norm2.weight"].fill_(1)
            state[f"{key}.norm2.bias"].zero_()
    std = torch.tensor(model.config.preprocessing.std).reshape(1, 3, 1, 1) * 255
    state["patch_embeds.0.proj.weight"] *= std
    put("head", cast(nn.Module, edge.head.classifier))
    state["norm.weight"].fill_(1)
    state["norm.bias"].zero_()
    return state
