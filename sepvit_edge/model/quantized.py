"""The int8 layers of a quantised model, as checkpoints store them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import SepViTError

# Int8 weights are limited to this, not to 127: `sepvit_edge.quantization.scheme` says why.
WEIGHT_LIMIT = 64


@dataclass(frozen=True)
class QuantizedLayer:
    """Integers and scales of an int8 layer of the edge form.

    Attributes
    ----------
    weight : Tensor
        int8, of the shape of the edge form's weight.
    weight_scale : Tensor
        float32 (output channels,).
    input_scale, output_scale : float or None
        Scales of the activations before and behind it; None where they stay float.

    Raises
    ------
    SepViTError
        If an integer is beyond the limit.
    """

    weight: Tensor
    weight_scale: Tensor
    input_scale: float | None
    output_scale: float | None

    def __post_init__(self) -> None:
        largest = int(self.weight.to(torch.int16).abs().max())
        if largest > WEIGHT_LIMIT:
            raise SepViTError(
                f"the checkpoint has an int8 weight of {largest}; int8 weights are limited to "
                f"±{WEIGHT_LIMIT}: quantise the float checkpoint again"
            )

    def dequantized(self) -> Tensor:
        """Return the float32 weight that the integers stand for."""
        return self.weight.float() * per_channel(self.weight_scale, self.weight)


@dataclass(frozen=True)
class Calibration:
    """The images that the activations' scales were measured on.

    Attributes
    ----------
    data : str
        Name of the data.
    images : int
        Their number.
    sha256 : str
        Digest of their preprocessed pixels.
    method : str
        ``"mse"``, ``"percentile"`` or ``"min-max"``.
    """

    data: str
    images: int
    sha256: str
    method: str


@dataclass(frozen=True)
class Quantization:
    """The int8 layers of a model, and why the others are float.

    Attributes
    ----------
    layers : dict
        Int8 layers by the edge form's module names, as ``stages.2.blocks.4.psa.q``.
    float_layers : dict
        Layer -> reason.
    calibration : Calibration
        Images that the scales of the activations come from.
    trained : bool
        Whether the weights were trained with this quantisation in place.
    sha256 : str
        Digest of all integers and scales.
    """

    layers: Mapping[str, QuantizedLayer]
    float_layers: Mapping[str, str]
    calibration: Calibration
    trained: bool = False
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for name, layer in sorted(self.layers.items()):
            scales = f"{layer.input_scale!r} {layer.output_scale!r}"
            digest.update(f"{name} {tuple(layer.weight.shape)} {scales}\n".encode())
            digest.update(layer.weight.contiguous().numpy().data)
            digest.update(layer.weight_scale.contiguous().numpy().data)
        object.__setattr__(self, "sha256", digest.hexdigest())


def per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    """Shape (output channels,) scales so that they broadcast over a weight."""
    return scale.reshape(-1, *(1,) * (weight.ndim - 1))
