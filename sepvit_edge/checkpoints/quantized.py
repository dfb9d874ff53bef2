"""Quantisation-aware checkpoints: integers and scales in place of float weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import SepViTError
from ..model.edge import EdgeModel
from ..model.quantized import Calibration, Quantization, QuantizedLayer
from ..model.reference import SepViT, with_config
from ..model.unfold import reference_key, unfold
from ..model.variants import ModelConfig
from ..quantization.scheme import CLASSIFIER, LAYER_SCHEME, quantizable_layers
from .fitting import empty_model
from .metadata import LARGEST_SCALE, LEAST_SCALE, Metadata

_PREFIX = "quantized."  # in front of the names of int8 layers
_PARTS = ("weight", "weight_scale")


def take_quantization(state: dict[str, Any], metadata: Metadata, path: Path) -> Quantization | None:
    """Move the int8 layers of a quantisation-aware checkpoint out of its state dict.

    Raises
    ------
    SepViTError
        If a tensor is missing, is not int8 or has no usable scale, or the scheme is not known.
    """
    facts = metadata.quantization
    if facts is None:
        return None
    if facts.scheme != LAYER_SCHEME:
        raise SepViTError(
            f"{path.name} is quantised by a scheme that is not supported, {facts.scheme!r}; "
            f"supported: {LAYER_SCHEME!r}"
        )
    layers = {}
    for name, scales in facts.scales.items():
        weight, scale = (state.pop(f"{_PREFIX}{name}.{part}", None) for part in _PARTS)
        fault = _fault_of(weight, scale)
        if scales != (None, None) if name == CLASSIFIER else None in scales:
            fault = f"has the scales {scales[0]} and {scales[1]}"
        if fault is not None:
            raise SepViTError(f"{path.name} has a damaged quantisation: the layer {name} {fault}")
        try:
            layers[name] = QuantizedLayer(weight, scale, *scales)
        except SepViTError as error:
            raise SepViTError(f"{path.name}: {error}") from None
    calibration = Calibration(**facts.calibration.model_dump())
    return Quantization(layers, facts.float_layers, calibration, trained=True)


def _fault_of(weight: Tensor | None, scale: Tensor | None) -> str | None:
    """Say what is wrong with the tensors of an int8 layer."""
    if weight is None or scale is None:
        return "lacks its weight or its weight_scale"
    if weight.dtype != torch.int8 or not weight.numel() or not weight.ndim:
        return f"has a weight of {weight.dtype} {tuple(weight.shape)}, not integers of torch.int8"
    if scale.dtype != torch.float32 or scale.shape != weight.shape[:1]:
        return (
            f"has a weight_scale of {scale.dtype} {tuple(scale.shape)}, not one torch.float32 for "
            f"each of its {len(weight)} channels"
        )
    if not ((scale >= LEAST_SCALE) & (scale <= LARGEST_SCALE)).all():
        return "has a weight_scale that is not positive and finite"
    return None


def placeholders(
    quantization: Quantization, config: ModelConfig, state: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return zeros for the float weights that the integers will replace."""
    shapes = {key: value.shape for key, value in empty_model(config).state_dict().items()}
    covered = _covered([*quantization.layers, *quantization.float_layers], quantization)
    return {key: torch.zeros(shapes[key]) for key in covered if key in shapes.keys() - state}


def _covered(layers: Iterable[str], quantization: Quantization) -> list[str]:
    """Return the reference's weights of which every layer is int8: q, k and v share one."""
    covered: dict[str, bool] = {}
    for name in layers:
        try:
            key = reference_key(name)
        except (IndexError, ValueError):  # not a layer: it is refused once the model is there
            continue
        covered[key] = covered.get(key, True) and name in quantization.layers
    return [key for key, whole in covered.items() if whole]


def with_integers(model: SepViT, quantization: Quantization, path: Path) -> SepViT:
    """Return the model whose weights are the dequantised integers.

    Raises
    ------
    SepViTError
        If the int8 layers and those left in float are not the model's layers.
    """
    edge = EdgeModel(model)
    layers = quantizable_layers(edge)
    stated = Counter([*quantization.layers, *quantization.float_layers])
    for name in (*layers, *stated):
        quantized = quantization.layers.get(name)
        fits = stated[name] == 1 and name in layers
        if not fits or (quantized and quantized.weight.shape != layers[name].weight.shape):
            raise SepViTError(f"the quantisation of {path.name} does not fit the model: {name}")
    for name, quantized in quantization.layers.items():
        layers[name].weight = torch.nn.Parameter(quantized.dequantized(), False)
    return quantized_model(model, edge, quantization)


def quantized_state(model: SepViT, quantization: Quantization) -> dict[str, Tensor]:
    """Return a state dict with integers and scales in place of the weights that they replace."""
    covered = _covered(quantizable_layers(EdgeModel(model)), quantization)
    state = {
        key: value.detach().cpu() for key, value in model.state_dict().items() if key not in covered
    }
    for name, layer in quantization.layers.items():
        state[f"{_PREFIX}{name}.weight"] = layer.weight.contiguous()
        state[f"{_PREFIX}{name}.weight_scale"] = layer.weight_scale.contiguous()
    return state


def quantization_metadata(quantization: Quantization) -> dict[str, Any]:
    """Return the part of a quantisation that is not in the state dict."""
    return {
        "scheme": LAYER_SCHEME,
        "scales": {
            name: [layer.input_scale, layer.output_scale]
            for name, layer in quantization.layers.items()
        },
        "float_layers": dict(quantization.float_layers),
        "calibration": asdict(quantization.calibration),
    }


def quantized_model(
    model: SepViT, edge: EdgeModel, quantization: Quantization | None = None
) -> SepViT:
    """Return the reference model that computes what an edge model with rounded weights computes.

    Parameters
    ----------
    model : SepViT
        The model that the edge model was made of; not changed.
    edge : EdgeModel
        Its weights lie on their scales.
    quantization : Quantization, optional
        Integers and scales to store in the result.
    """
    result = with_config(model, model.config)
    state = unfold(edge, model)
    result.load_state_dict(state, assign=True)
    result.quantization = quantization
    return result.eval()
