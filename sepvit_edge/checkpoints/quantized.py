"""Quantisation-aware checkpoints: integers and scales in place of float weights."""

from __future__ import annotations

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
from ..quantization.scheme import LAYER_SCHEME, quantizable_layers

_PREFIX = "quantized."  # in front of the names of int8 layers


def take_quantization(
    state: dict[str, Tensor], metadata: dict[str, Any], path: Path
) -> Quantization | None:
    """Move the int8 layers of a quantisation-aware checkpoint out of its state dict."""
    if "quantization" not in metadata:
        return None
    try:
        facts = metadata["quantization"]
        layers = {
            name: QuantizedLayer(
                state.pop(f"{_PREFIX}{name}.weight"),
                state.pop(f"{_PREFIX}{name}.weight_scale"),
                *scales,
            )
            for name, scales in facts["scales"].items()
        }
        calibration = Calibration(**facts["calibration"])
        return Quantization(layers, facts["float_layers"], calibration, trained=True)
    except (KeyError, TypeError, ValueError) as error:
        raise SepViTError(f"{path.name} has a damaged quantisation ({error})") from None


def placeholders(
    quantization: Quantization, config: ModelConfig, state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return zeros for the float weights that the integers will replace."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in SepViT(config).state_dict().items()}
    keys = {reference_key(name) for name in quantization.layers} - state.keys()
    return {key: torch.zeros(shapes[key]) for key in keys if key in shapes}


def with_integers(model: SepViT, quantization: Quantization) -> SepViT:
    """Return the model whose weights are the dequantised integers."""
    edge = EdgeModel(model)
    layers = quantizable_layers(edge)
    for name, quantized in quantization.layers.items():
        layer = layers.get(name)
        if layer is None or layer.weight.shape != quantized.weight.shape:
            raise SepViTError(f"the quantisation of the checkpoint does not fit the model: {name}")
        layer.weight = torch.nn.Parameter(quantized.dequantized(), False)
    return quantized_model(model, edge, quantization)


def quantized_state(model: SepViT, quantization: Quantization) -> dict[str, Tensor]:
    """Return a state dict with integers and scales in place of the weights that they replace."""
    covered: dict[str, bool] = {}
    for name in quantizable_layers(EdgeModel(model)):
        key = reference_key(name)  # q, k and v have one weight: all three must be integers
        covered[key] = covered.get(key, True) and name in quantization.layers
    state = {
        key: value.detach().cpu()
        for key, value in model.state_dict().items()
        if not covered.get(key)
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
