"""What a form of the network consists of; `forms.py` has the forms by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .norms import Softmax
from .pixels import Pixels
from .weights import (
    BlockWeights,
    DSAWeights,
    EmbeddingWeights,
    HeadWeights,
    LayerWeights,
    MLPWeights,
    NormWeights,
    PSAWeights,
    Sides,
    Windows,
)


@dataclass(frozen=True)
class Form:
    """One class for each part of the network.

    A class gets the form (for the norm or softmax inside it), its weights, and what else is static:
    the sides of a map, the windows, the images a call.

    Attributes
    ----------
    name : str
        Name in recipes and manifests.
    pixels : type
        `EdgeModel.input`.
    stem, embedding : type
        `patch_embedding` of the first stage, and of the others: (form, weights), with the sides of
        the map that comes for the others.
    norm : type
        Every `norm`.
    softmax : type
        Inside `dsa` and `psa`.
    block : type
        `blocks.j`, which makes the three that follow.
    dsa, psa, mlp : type
        Attention within windows, attention among windows, and the two linears of a block.
    encoding : type
        `cpe`, the position encoding.
    head : type
        `head`, with the sides of the last map.
    """

    name: str
    pixels: type[Pixels]
    stem: Callable[[Form, EmbeddingWeights], nn.Module]
    embedding: Callable[[Form, EmbeddingWeights, Sides], nn.Module]
    norm: Callable[[NormWeights], nn.Module]
    softmax: type[Softmax]
    block: Callable[[Form, BlockWeights, int], nn.Module]
    dsa: Callable[[Form, DSAWeights, Windows, int], nn.Module]
    psa: Callable[[Form, PSAWeights, Windows, int], nn.Module]
    mlp: Callable[[Form, MLPWeights], nn.Module]
    encoding: Callable[[LayerWeights, Sides], nn.Module]
    head: Callable[[Form, HeadWeights, Sides, int], nn.Module]
