"""Checkpoints in and out.

In: the authors' layout (a bare state dict, or one under ``model``; keys may carry ``module.``), as
a pickle or as safetensors. Out: safetensors whose metadata holds the configuration.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import SepViTError
from ..files import file_sha256
from ..model.reference import SepViT
from ..model.variants import VARIANTS, ModelConfig, Preprocessing, Source, Variant, find_variant
from .builtin import builtin_checkpoints

if TYPE_CHECKING:
    from ..model.quantized import Quantization

_METADATA_KEY = "sepvit_edge"
_QUANTIZED = "quantized."  # in front of the names of int8 layers


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
        What it must be; guessed from the shapes if not given.
    labels : tuple of str, optional
        Class names, in place of the file's.
    image_size : int, optional
        In place of the file's: no weight depends on it.

    Returns
    -------
    SepViT
        With float32 weights; ``model.source`` says where they came from.

    Raises
    ------
    SepViTError
        If the file cannot be read, wants to run code, or holds another model; the first missing,
        unexpected and misshapen keys are named.
    """
    path = builtin_checkpoints().get(str(path), Path(path))
    state, metadata = _read(path)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    quantization = _take_quantization(state, metadata, path)
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
        state |= _placeholders(quantization, config, state)
    model = _assemble(state, config, path)
    if quantization is not None:
        model = _on_grid(model, quantization)
    model.source = Source(
        weights_digest(model),
        file_sha256(path),
        path.stat().st_size,
        metadata.get("trained_on"),
    )
    return model


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and our metadata (empty for the authors' files)."""
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
        reason = f"it wants to call {name[1]}" if name else "it is not a plain pickle of tensors"
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
        raise SepViTError(f"{path.name} holds no state dict, neither bare nor under 'model'")
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
            f"{path.name} is no SepViT classifier: no variant has its shapes (first keys: {first})"
        )
    return ModelConfig(variant.key, num_classes=head.shape[0])


def guess_variant(state: Mapping[str, Tensor]) -> Variant | None:
    """Tell the variant of a state dict in the authors' layout by its width and depth."""
    first = state.get("patch_embeds.0.proj.weight")
    blocks = (re.match(r"blocks\.2\.(\d+)\.", key) for key in state)
    depth = 1 + max((int(match[1]) for match in blocks if match), default=-1)
    for variant in VARIANTS.values():
        if first is not None and first.shape[0] == variant.width and depth == variant.depths[2]:
            return variant
    return None


def _take_quantization(
    state: dict[str, Tensor], metadata: dict[str, Any], path: Path
) -> Quantization | None:
    """Move the int8 layers of a quantisation-aware checkpoint out of its state dict."""
    if "quantization" not in metadata:
        return None
    from ..model.quantized import Calibration, Quantization, QuantizedLayer

    try:
        facts = metadata["quantization"]
        layers = {
            name: QuantizedLayer(
                state.pop(f"{_QUANTIZED}{name}.weight"),
                state.pop(f"{_QUANTIZED}{name}.weight_scale"),
                *scales,
            )
            for name, scales in facts["scales"].items()
        }
        calibration = Calibration(**facts["calibration"])
        return Quantization(layers, facts["float_layers"], calibration, trained=True)
    except (KeyError, TypeError, ValueError) as error:
        raise SepViTError(f"{path.name} has a damaged quantisation ({error})") from None


def _placeholders(
    quantization: Quantization, config: ModelConfig, state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Zeros for the float weights that the integers will replace."""
    from ..model.edge import reference_key

    with torch.device("meta"):
        shapes = {k: v.shape for k, v in SepViT(config).state_dict().items()}
    keys = {reference_key(name) for name in quantization.layers} - state.keys()
    return {key: torch.zeros(shapes[key]) for key in keys if key in shapes}


def _on_grid(model: SepViT, quantization: Quantization) -> SepViT:
    """Replace the weights of a model by those that the integers stand for."""
    from ..model.edge import EdgeModel
    from ..quantization.scheme import quantizable_layers
    from ..training.quantized import quantized_model

    edge = EdgeModel(model)
    layers = quantizable_layers(edge)
    for name, quantized in quantization.layers.items():
        layer = layers.get(name)
        if layer is None or layer.weight.shape != quantized.weight.shape:
            raise SepViTError(f"the quantisation of the checkpoint does not fit the model: {name}")
        layer.weight = torch.nn.Parameter(quantized.dequantized(), False)
    return quantized_model(model, edge, quantization)


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
        How float weights are stored; float16 halves the file. A quantisation-aware model is stored
        as its integers and scales instead: exact, in a quarter of the size.
    trained_on : str, optional
        Name of the data set, so that nobody evaluates on training data unawares.
    """
    path = Path(path)
    metadata: dict[str, Any] = {"config": asdict(model.config)}
    if trained_on:
        metadata["trained_on"] = trained_on
    state = {key: value.detach().to("cpu", dtype) for key, value in model.state_dict().items()}
    if model.quantization is not None:
        from ..quantization.scheme import LAYER_SCHEME

        state = _quantized_state(model, model.quantization)
        metadata["quantization"] = {
            "scheme": LAYER_SCHEME,
            "scales": {
                name: [layer.input_scale, layer.output_scale]
                for name, layer in model.quantization.layers.items()
            },
            "float_layers": dict(model.quantization.float_layers),
            "calibration": asdict(model.quantization.calibration),
        }
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        temporary = Path(scratch) / path.name
        save_file(state, temporary, {_METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        temporary.chmod(0o644)
        os.replace(temporary, path)


def _quantized_state(model: SepViT, quantization: Quantization) -> dict[str, Tensor]:
    """State dict with integers and scales in place of the weights that they stand for."""
    from ..model.edge import EdgeModel, reference_key
    from ..quantization.scheme import quantizable_layers

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
        state[f"{_QUANTIZED}{name}.weight"] = layer.weight.contiguous()
        state[f"{_QUANTIZED}{name}.weight_scale"] = layer.weight_scale.contiguous()
    return state


def source_of(model: SepViT) -> Source:
    """Where a model's weights came from; once changed, only what they are."""
    digest = weights_digest(model)
    known = model.source
    return known if known and known.weights_sha256 == digest else Source(digest)


def weights_digest(model: SepViT) -> str:
    """SHA-256 over the names, shapes and float32 values of a state dict, and its quantisation."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().data)
    if model.quantization is not None:
        digest.update(model.quantization.sha256.encode())
    return digest.hexdigest()


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read class names, one a line, in the order of the classifier's outputs.

    Parameters
    ----------
    path : str or Path
        A text file, or ``"imagenet"`` for the 1,000 names that torchvision carries.

    Raises
    ------
    SepViTError
        If the file cannot be read or is empty.
    """
    if str(path) == "imagenet":
        return _imagenet_labels()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SepViTError(f"the labels {path} cannot be read: {reason}") from None
    labels = tuple(line.strip() for line in lines if line.strip())
    if not labels:
        raise SepViTError(f"{path} has no labels in it; give one a line")
    return labels


def _imagenet_labels() -> tuple[str, ...]:
    try:
        from torchvision.models import ResNet50_Weights
    except ImportError:
        raise SepViTError(
            "the names of ImageNet's classes come from torchvision; run: "
            "pip install 'sepvit-edge[imagenet]'"
        ) from None
    return tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
