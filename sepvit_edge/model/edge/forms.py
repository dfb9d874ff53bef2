"""The forms by name: which classes each one consists of."""

from __future__ import annotations

from dataclasses import replace

from ...errors import unknown_name
from . import heads, maps, rows
from .form import Form
from .norms import LayerNorm, ProductNorm, ProductSoftmax, Softmax, TableNorm
from .pixels import BytePixels, FloatPixels

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
        replace(_ROWS, name="litert", pixels=FloatPixels, psa=rows.HalvedPSA),
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
