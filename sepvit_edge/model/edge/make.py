"""The edge form of a reference model of any task."""

from __future__ import annotations

from typing import TypeAlias

from ...errors import SepViTError
from ..create import ReferenceModel
from ..dense import DenseModel
from .dense import DenseEdgeModel, RegionModel
from .form import Form
from .forms import FORMS
from .network import EdgeModel

# What is traced and quantised: a model's first graph, or another one.
EdgeGraph: TypeAlias = EdgeModel | RegionModel


def edge_model(
    model: ReferenceModel, batch: int = 1, form: Form = FORMS["rows"], taps: bool = False
) -> EdgeModel:
    """Make the edge form of a model; see `EdgeModel` and `DenseEdgeModel`.

    Raises
    ------
    SepViTError
        If a dense model is to take several images a call, or the form has no dense prediction.
    """
    if not isinstance(model, DenseModel):
        return EdgeModel(model, batch, form, taps)
    if batch != 1:
        raise SepViTError(f"a dense package takes one image a call, not {batch}; leave --batch out")
    return DenseEdgeModel(model, form, taps)
