"""Checkpoints in and out.

In: the authors' layout (a bare state dict, or one under ``model``; keys may carry ``module.``), as
a pickle or as safetensors. Out: safetensors whose metadata holds the configuration.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import SepViTError
from ..files import file_sha256
from ..model.reference import SepViT
from ..model.variants import VARIANTS, ModelConfig, Preprocessing, Source, Variant, find_variant
from .builtin import builtin_checkpoints
from .quantized import (
    placeholders,
    quantization_metadata,
    quantized_state,
    take_quantization,
    with_integers,
)
from .source import weights_digest

_METADATA_KEY = "sepvit_edge"


def load_checkpoint(
    path: str | Path,
    *,
    variant: str | None = None,
    labels: tuple[str, ...] | None = None,
    image_size: int | None = None,
) -> SepViT:
    """Read a checkpoint into a reference model in evaluation mode.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` file, a pickle (``.pth``, ``.pt``, ``.bin``), or the name of a built-in
        checkpoint.
    variant : str, optional
        The expected variant. Default: the one that the shapes fit.
    labels : tuple of str, optional
        Class names. Default: the file's.
    image_size : int, optional
        Side of the input in pixels. Default: the file's; no weight depends on it.

    Returns
    -------
    SepViT
        With float32 weights; ``model.source`` holds their origin.

    Raises
    ------
    SepViTError
        If the file cannot be read, contains code, or holds another model; the first missing,
        unexpected and misshapen keys are named.

    Examples
    --------
    >>> import sepvit_edge
    >>> model = sepvit_edge.load_checkpoint("lite-digits", image_size=64)
    >>> model.config.num_classes, model.source.trained_on
    (10, 'digits/train')
    """
    path = builtin_checkpoints().get(str(path), Path(path))
    state, metadata = _read(path)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    quantization = take_quantization(state, metadata, path)
    config = _config(state, metadata, path)
    if variant is not None and find_variant(variant).key != config.variant:
        raise SepViTError(
            f"{path.name} is a {find_variant(config.variant).name}, "
            f"not a {find_variant(variant).name}"
        )
    config = replace(
        config,
        labels=config.labels if labels is None else labels,
        image_size=image_size or config.image_size,
    )
    if quantization is not None:
        state |= placeholders(quantization, config, state)
    model = _assemble(state, config, path)
    if quantization is not None:
        model = with_integers(model, quantization)
    model.source = Source(
        weights_digest(model),
        file_sha256(path),
        path.stat().st_size,
        metadata.get("trained_on"),
    )
    return model


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict and our metadata, which is empty for the authors' files."""
    if not path.exists():
        known = ", ".join(builtin_checkpoints())
        raise SepViTError(f"there is no checkpoint {path} (built in: {known or 'none'})")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
                return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
        # weights_only: a pickle may name tensors and plain containers, and nothing else.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it calls {name[1]}" if name else "it is not a plain pickle of tensors"
        raise SepViTError(
            f"{path.name} was refused: {reason}; save the state dict alone "
            "(torch.save(model.state_dict(), ...))"
        ) from None
    except IsADirectoryError:
        raise SepViTError(f"{path} is a folder, not a checkpoint") from None
    except PermissionError:
        raise SepViTError(f"{path} cannot be read: permission denied") from None
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError, KeyError, TypeError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise SepViTError(f"{path.name} is not a readable checkpoint ({reason})") from None
    for key in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise SepViTError(
            f"{path.name} holds no state dict; save one with torch.save(model.state_dict(), ...)"
        )
    return dict(loaded), {}


def _config(state: dict[str, Tensor], metadata: dict[str, Any], path: Path) -> ModelConfig:
    if "config" in metadata:
        try:
            stored = dict(metadata["config"])
            rule = stored.pop("preprocessing")
            preprocessing = Preprocessing(rule["crop"], tuple(rule["mean"]), tuple(rule["std"]))
            labels = tuple(stored.pop("labels"))
            return ModelConfig(**stored, labels=labels, preprocessing=preprocessing)
        except (KeyError, TypeError) as error:
            raise SepViTError(f"{path.name} has a damaged configuration ({error})") from None
    variant = guess_variant(state)
    head = state.get("head.weight")
    if variant is None or head is None or head.ndim != 2:
        first = ", ".join(list(state)[:3]) or "none"
        raise SepViTError(
            f"{path.name} is not a SepViT classifier: its shapes fit no variant "
            f"(first keys: {first})"
        )
    return ModelConfig(variant.key, num_classes=head.shape[0])


def guess_variant(state: Mapping[str, Tensor]) -> Variant | None:
    """Return the variant with the width and depth of a state dict in the authors' layout."""
    first = state.get("patch_embeds.0.proj.weight")
    blocks = (re.match(r"blocks\.2\.(\d+)\.", key) for key in state)
    depth = 1 + max((int(match[1]) for match in blocks if match), default=-1)
    for variant in VARIANTS.values():
        if first is not None and first.shape[0] == variant.width and depth == variant.depths[2]:
            return variant
    return None


def _assemble(state: dict[str, Tensor], config: ModelConfig, path: Path) -> SepViT:
    with torch.device("meta"):
        model = SepViT(config)
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or unexpected or misshapen:
        faults = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        found = "; ".join(f"{len(keys)} {kind}, first {keys[0]}" for kind, keys in faults if keys)
        guess = guess_variant(state)
        looks = f" (it looks like {guess.name})" if guess and guess.key != config.variant else ""
        raise SepViTError(
            f"{path.name} does not fit {find_variant(config.variant).name} with "
            f"{config.num_classes} classes: {found}{looks}"
        )
    floats = {key: value.to(torch.float32).contiguous() for key, value in state.items()}
    broken = next((key for key, value in floats.items() if not value.isfinite().all()), None)
    if broken:
        raise SepViTError(f"{path.name} holds values that are not finite, first in {broken}")
    model.load_state_dict(floats, assign=True)
    return model.eval()


def save_checkpoint(
    model: SepViT,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    trained_on: str | None = None,
) -> None:
    """Write a model as safetensors with its configuration; an existing file is replaced at once.

    Parameters
    ----------
    model : SepViT
        The weights and their configuration.
    path : str or Path
        The file.
    dtype : torch.dtype
        Type of the stored float weights; float16 halves the file. A quantisation-aware model is
        stored as its integers and scales instead: exact, in a quarter of the size.
    trained_on : str, optional
        Name of the data set; evaluation on its training images is refused.

    Examples
    --------
    >>> import sepvit_edge, tempfile
    >>> model = sepvit_edge.create_model("lite", num_classes=2, labels=("cat", "dog"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sepvit_edge.save_checkpoint(model, f"{folder}/pets.safetensors")
    ...     sepvit_edge.load_checkpoint(f"{folder}/pets.safetensors").config.labels
    ('cat', 'dog')
    """
    path = Path(path)
    metadata: dict[str, Any] = {"config": asdict(model.config)}
    if trained_on:
        metadata["trained_on"] = trained_on
    state = {key: value.detach().to("cpu", dtype) for key, value in model.state_dict().items()}
    if model.quantization is not None:
        state = quantized_state(model, model.quantization)
        metadata["quantization"] = quantization_metadata(model.quantization)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        temporary = Path(scratch) / path.name
        save_file(state, temporary, {_METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        temporary.chmod(0o644)
        os.replace(temporary, path)
