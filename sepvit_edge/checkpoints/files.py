"""Checkpoints in and out.

In: a state dict in the authors' layout, bare or as training tools wrap it, written by torch.save or
as safetensors. Out: safetensors whose metadata holds the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors.torch import save_file

from ..errors import SepViTError, unknown_name
from ..files import file_sha256, replacing_file
from ..model.create import ReferenceModel
from ..model.dense import DenseModel, DenseTask
from ..model.dense.config import DENSE_TASKS, WindowRule
from ..model.reference import SepViT
from ..model.variants import ModelConfig, Source, find_variant
from .builtin import locate
from .dense import Expected, dense_model, is_dense
from .fitting import (
    differences,
    empty_model,
    guess_variant,
    is_counter,
    nearest_variant,
    num_classes_of,
)
from .metadata import KEY, Metadata
from .quantized import (
    placeholders,
    quantization_metadata,
    quantized_state,
    take_quantization,
    with_integers,
)
from .reading import read_state_dict
from .source import weights_digest
from .tensors import float_weights


@overload
def load_checkpoint(
    path: str | Path,
    *,
    variant: str | None = None,
    labels: tuple[str, ...] | None = None,
    image_size: int | None = None,
    task: Literal["classification"] = "classification",
) -> SepViT: ...
@overload
def load_checkpoint(
    path: str | Path,
    *,
    variant: str | None = None,
    labels: tuple[str, ...] | None = None,
    task: DenseTask,
    head: str | None = None,
    input_size: tuple[int, int] | None = None,
    window: WindowRule | None = None,
) -> DenseModel: ...
@overload
def load_checkpoint(path: str | Path, *, task: None) -> ReferenceModel: ...
def load_checkpoint(
    path: str | Path,
    *,
    variant: str | None = None,
    labels: tuple[str, ...] | None = None,
    image_size: int | None = None,
    task: str | None = "classification",
    head: str | None = None,
    input_size: tuple[int, int] | None = None,
    window: WindowRule | None = None,
) -> ReferenceModel:
    """Read a checkpoint into a reference model in evaluation mode.

    Parameters
    ----------
    path : str or Path
        A file of safetensors or of torch.save, or the name of a built-in checkpoint. Wrappers'
        keys and prefixes are removed; of raw and averaged weights, the averaged ones are taken, or
        those that ``FILE::KEY`` names.
    variant : str, optional
        The expected variant. Default: the one that the shapes fit.
    labels : tuple of str, optional
        Class names. Default: the file's.
    image_size : int, optional
        Of a classifier: side of the input in pixels. Default: the file's; no weight depends on it.
    task : str or None
        The expected task; None takes what the file holds.
    head : str, optional
        Of a dense model: the expected head. Default: the one that the keys fit.
    input_size : tuple of int, optional
        Of a dense model: height and width in pixels. Default: the file's, or 512 x 512.
    window : str, optional
        Of a dense model: ``"paper"`` or ``"fit"``. Default: the file's, or the paper's.

    Returns
    -------
    SepViT or DenseModel
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
    path, key = locate(path)
    found, metadata = read_state_dict(path, key)
    state, name = found.values, f"{path.name}{found.found}"
    if task is not None and task not in ("classification", *DENSE_TASKS):
        raise unknown_name("task", task, ("classification", *DENSE_TASKS))
    if is_dense(state, metadata):
        _refuse_dense(task, name)
        expected = Expected(task, head, variant, input_size, window, labels)
        dense = dense_model(state, metadata, name, expected)
        dense.source = _source(dense, path, metadata)
        return dense
    if task not in (None, "classification"):
        raise SepViTError(f"{name} is a classifier, not a model for {task}")
    quantization = take_quantization(state, metadata, path)
    config = _config(state, metadata, name)
    if variant is not None and find_variant(variant).key != config.variant:
        raise SepViTError(
            f"{path.name} is a {find_variant(config.variant).name}, "
            f"not a {find_variant(variant).name}"
        )
    config = replace(
        config,
        labels=config.labels if labels is None else labels,
        image_size=config.image_size if image_size is None else image_size,
    )
    if quantization is not None:
        state |= placeholders(quantization, config, state)
    model = _assemble(state, config, name)
    if quantization is not None:
        model = with_integers(model, quantization, path)
    model.source = _source(model, path, metadata)
    return model


def _source(model: ReferenceModel, path: Path, metadata: Metadata) -> Source:
    return Source(
        weights_digest(model), file_sha256(path), path.stat().st_size, metadata.trained_on
    )


def _refuse_dense(task: str | None, name: str) -> None:
    if task == "classification":
        raise SepViTError(
            f"{name} is a model for segmentation or detection, not a classifier; name its task "
            "(in Python: load_checkpoint(..., task='segmentation'))"
        )


def _config(state: Mapping[str, Any], metadata: Metadata, name: str) -> ModelConfig:
    if metadata.config is not None:
        try:
            return metadata.config.model_config_of()
        except SepViTError as error:
            raise SepViTError(f"{name} has a damaged configuration: {error}") from None
    variant = guess_variant(state)
    classes = num_classes_of(state)
    if variant is not None and classes:
        return ModelConfig(variant.key, classes)
    nearest, differing = nearest_variant(state)
    first = ", ".join(list(state)[:3]) or "none"
    if not differing.common:
        raise SepViTError(
            f"{name} is not a SepViT classifier: no key is one of its (first keys: {first})"
        )
    raise SepViTError(
        f"{name} is not a SepViT classifier: its shapes fit no variant; from the nearest, "
        f"{nearest.name}, it differs by {differing} (first keys: {first})"
    )


def _assemble(state: Mapping[str, Any], config: ModelConfig, name: str) -> SepViT:
    differing = differences(state, config)
    if differing.count:
        guess = guess_variant(state)
        looks = f" (it looks like {guess.name})" if guess and guess.key != config.variant else ""
        raise SepViTError(
            f"{name} does not fit {find_variant(config.variant).name} with "
            f"{config.num_classes} classes: {differing}{looks}"
        )
    model = empty_model(config)
    floats = float_weights({key: state[key] for key in model.state_dict()}, name)
    model.load_state_dict(floats, assign=True)
    return model.eval()


def save_checkpoint(
    model: ReferenceModel,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    trained_on: str | None = None,
) -> None:
    """Write a model as safetensors with its configuration; an existing file is replaced at once.

    Parameters
    ----------
    model : SepViT or DenseModel
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
    dense = isinstance(model, DenseModel)
    metadata: dict[str, Any] = {"dense" if dense else "config": asdict(model.config)}
    if trained_on:
        metadata["trained_on"] = trained_on
    state = {
        key: value.detach().to("cpu", dtype)
        for key, value in model.state_dict().items()
        if not is_counter(key)
    }
    lost = next((key for key, value in state.items() if not value.isfinite().all()), None)
    if lost is not None and dtype == torch.float16 and model.state_dict()[lost].isfinite().all():
        raise SepViTError(
            f"{lost} holds values over float16's largest, 65504; store the weights in float32"
        )
    if isinstance(model, SepViT) and model.quantization is not None:
        state = quantized_state(model, model.quantization)
        metadata["quantization"] = quantization_metadata(model.quantization)
    with replacing_file(Path(path)) as partial:
        save_file(state, partial, {KEY: json.dumps(metadata, sort_keys=True)})
