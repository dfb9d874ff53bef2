"""Whether a state dict is a variant's, and where it differs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from ..model.dense import DenseConfig, DenseModel
from ..model.reference import SepViT
from ..model.variants import VARIANTS, ModelConfig, Variant

_LOADABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def shape_of(value: object) -> tuple[int, ...]:
    """Return the shape of a tensor; empty for a nested one, and for anything else."""
    return tuple(value.shape) if isinstance(value, Tensor) and not value.is_nested else ()


def guess_variant(state: Mapping[str, Any]) -> Variant | None:
    """Return the variant with the width and depth of a state dict in the authors' layout."""
    first = state.get("patch_embeds.0.proj.weight")
    blocks = (re.match(r"blocks\.2\.(\d{1,3})\.", key) for key in state)
    depth = 1 + max((int(match[1]) for match in blocks if match), default=-1)
    for variant in VARIANTS.values():
        if shape_of(first)[:1] == (variant.width,) and depth == variant.depths[2]:
            return variant
    return None


@overload
def empty_model(config: ModelConfig) -> SepViT: ...
@overload
def empty_model(config: DenseConfig) -> DenseModel: ...
def empty_model(config: ModelConfig | DenseConfig) -> SepViT | DenseModel:
    """Return a model of a configuration whose weights take no memory."""
    with torch.device("meta"):
        return SepViT(config) if isinstance(config, ModelConfig) else DenseModel(config)


def wanted_shapes(config: ModelConfig | DenseConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a configuration's model; counters are left out."""
    state = empty_model(config).state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not is_counter(key)}


def is_counter(key: str) -> bool:
    """Return whether a key of a state dict counts the steps of a training, as batch norms do."""
    return key.endswith(".num_batches_tracked")


def num_classes_of(state: Mapping[str, Any]) -> int:
    """Return the number of the classifier's outputs; 0 if there is no classifier."""
    shape = shape_of(state.get("head.weight")) or shape_of(state.get("head.bias"))
    return shape[0] if shape else 0


@dataclass(frozen=True)
class Differences:
    """Differences of a state dict from a model's.

    Attributes
    ----------
    missing, unexpected : list of str
        Keys that only the model has, and that only the state dict has.
    misshapen : list of str
        Keys of another shape, with both shapes.
    common : int
        Number of keys that both have.
    """

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]
    common: int

    @property
    def count(self) -> int:
        """Number of keys that differ."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def __str__(self) -> str:
        faults = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "misshapen": self.misshapen,
        }
        return "; ".join(
            f"{len(keys)} {kind}, first {keys[0]}" for kind, keys in faults.items() if keys
        )


def differences(state: Mapping[str, Any], config: ModelConfig | DenseConfig) -> Differences:
    """Compare the keys and shapes of a state dict with those of a configuration's model."""
    wanted = wanted_shapes(config)
    found = {key: shape_of(value) for key, value in state.items() if isinstance(value, Tensor)}
    return Differences(
        [key for key in wanted if key not in state],
        [key for key in found if key not in wanted],
        [
            f"{key} {found[key]} instead of {wanted[key]}"
            for key in wanted
            if key in found and found[key] != wanted[key] and not state[key].is_nested
        ],
        len(wanted.keys() & found.keys()),
    )


def nearest_variant(state: Mapping[str, Any]) -> tuple[Variant, Differences]:
    """Return the variant from which a state dict differs least, and its differences."""
    classes = num_classes_of(state) or 1000
    pairs = [
        (variant, differences(state, ModelConfig(key, classes)))
        for key, variant in VARIANTS.items()
    ]
    return min(pairs, key=lambda pair: pair[1].count)


def fault_of(value: object) -> str | None:
    """Say why a value of a state dict is not a weight that can be read; None if it is one."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, not a tensor"
    if value.is_meta:
        return "has a shape and no values (meta device): load the weights before saving them"
    if value.is_nested:
        return "is a nested tensor: save plain tensors"
    if value.is_quantized:
        return "is quantised by torch: save it by value.dequantize()"
    if value.layout != torch.strided:
        return f"is stored as {value.layout}: save it by value.to_dense()"
    if value.dtype not in _LOADABLE:
        kind = str(value.dtype).removeprefix("torch.")
        return f"holds {kind} without scales: save it as float16, bfloat16 or float32"
    return None
