"""The forms by name, and what a form consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from ...errors import unknown_name
from . import heads, maps, rows
from .norms import LayerNorm, ProductNorm, ProductSoftmax, Softmax, TableNorm
from .pixels import BytePixels, FloatPixels, Pixels
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


_ROWS = Form(
    "rows",
    pixels=BytePixels,
    stem=rows.Stem,
    embedding=rows.Embedding,
    norm=LayerNorm,
    softmax=Softmax,
    block=rows.Block,
    dsa=rows.DSA,
    psa=rows.PSA,
    mlp=rows.MLP,
    encoding=rows.PositionEncoding,
    head=rows.Head,
)
_XNNPACK = replace(
    _ROWS, name="xnnpack", pixels=FloatPixels, norm=ProductNorm, head=rows.MapMeanHead
)
_ETHOS_U = replace(
    _ROWS,
    name="ethos-u",
    norm=TableNorm,
    softmax=ProductSoftmax,
    block=heads.Block,
    dsa=heads.DSA,
    psa=heads.PSA,
    head=heads.Head,
)
_MAPS = Form(
    "maps",
    pixels=FloatPixels,
    stem=maps.Stem,
    embedding=maps.Embedding,
    norm=maps.LayerNorm,
    softmax=Softmax,
    block=maps.Block,
    dsa=maps.DSA,
    psa=maps.PSA,
    mlp=maps.MLP,
    encoding=maps.PositionEncoding,
    head=maps.Head,
)
FORMS = {
    form.name: form
    for form in (
        _ROWS,
        replace(_ROWS, name="rows-float", pixels=FloatPixels),
        _XNNPACK,
        _ETHOS_U,
        replace(_ETHOS_U, name="ethos-u55", stem=heads.ThinnedStem),
        _MAPS,
    )
}


def find_form(name: str) -> Form:
    """Look up a form by the name that recipes use.

    Examples
    --------
    >>> find_form("xnnpack").pixels.layout
    'NCHW'

    Raises
    ------
    SepViTError
        If there is none of that name; the known ones are named.
    """
    if name not in FORMS:
        raise unknown_name("edge form", name, FORMS)
    return FORMS[name]
