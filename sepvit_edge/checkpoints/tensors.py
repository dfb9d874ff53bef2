"""Weights of a state dict as the float32 tensors that a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import SepViTError
from .fitting import fault_of


def float_weights(state: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return a state dict in float32.

    Parameters
    ----------
    state : dict
        Key -> what stands there in the file.
    name : str
        Name of the file, for messages.

    Raises
    ------
    SepViTError
        If a value is not a weight that can be read, or is not finite.
    """
    floats = {}
    for key, value in state.items():
        fault = fault_of(value)
        if fault:
            raise SepViTError(f"{name} cannot be used: {key} {fault}")
        floats[key] = value.to(torch.float32).contiguous()
        if not floats[key].isfinite().all():
            raise SepViTError(f"{name} holds values that are not finite, first in {key}")
    return floats
