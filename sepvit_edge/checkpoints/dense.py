"""Checkpoints of dense models: those of MMSegmentation and MMDetection, and our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import SepViTError
from ..model.dense import HEADS, DenseConfig, DenseModel
from ..model.dense.config import WindowRule, heads_of
from ..model.dense.retinanet import ANCHORS
from ..model.variants import Variant, find_variant
from .fitting import differences, empty_model, guess_variant, is_counter, shape_of
from .metadata import Metadata
from .tensors import float_weights

BACKBONE = "backbone."
# Parts of the authors' files that no dense model reads.
_IGNORED = (
    *("norm.", "head.", "auxiliary_head."),
    *(f"{BACKBONE}norm.", f"{BACKBONE}head."),
)


@dataclass(frozen=True)
class _Signature:
    """Weights by which a head is recognised, and what their first axis holds.

    Attributes
    ----------
    key : str
        A weight that only this head has.
    channels : str
        A weight with as many outputs as the neck or head has channels.
    classes : str
        A weight of the last layer.
    outputs : int
        Outputs of it for each class.
    """

    key: str
    channels: str
    classes: str
    outputs: int = 1


_SIGNATURES = {
    "semantic-fpn": _Signature(
        "decode_head.scale_heads.0.0.conv.weight",
        "neck.lateral_convs.0.conv.weight",
        "decode_head.conv_seg.weight",
    ),
    "upernet": _Signature(
        "decode_head.psp_modules.0.1.conv.weight",
        "decode_head.bottleneck.conv.weight",
        "decode_head.conv_seg.weight",
    ),
    "retinanet": _Signature(
        "bbox_head.retina_cls.weight",
        "neck.lateral_convs.0.conv.weight",
        "bbox_head.retina_cls.weight",
        ANCHORS,
    ),
    "mask-rcnn": _Signature(
        "roi_head.mask_head.conv_logits.weight",
        "neck.lateral_convs.0.conv.weight",
        "roi_head.mask_head.conv_logits.weight",
    ),
}
# Heads that are not supported, by a part that they have.
_OTHERS = {
    "roi_head.": "another two-stage detector",
    "rpn_head.": "another two-stage detector",
    "decode_head.": "another segmentation head",
    "bbox_head.": "another detection head",
}


@dataclass(frozen=True)
class Expected:
    """What a caller wants of a dense checkpoint; None stands for what the file says.

    Attributes
    ----------
    task, head, variant : str or None
        What it has to be.
    input_size, window, labels : tuple, str, tuple or None
        What takes the place of the file's own.
    """

    task: str | None
    head: str | None
    variant: str | None
    input_size: tuple[int, int] | None
    window: WindowRule | None
    labels: tuple[str, ...] | None


def is_dense(state: Mapping[str, Any], metadata: Metadata) -> bool:
    """Return whether a checkpoint holds a dense model or its backbone."""
    return bool(metadata.dense) or any(
        f"{prefix}norm_list.0.weight" in state for prefix in ("", BACKBONE)
    )


def dense_model(
    state: Mapping[str, Any], metadata: Metadata, name: str, expected: Expected
) -> DenseModel:
    """Make a dense model of a checkpoint's state dict, in evaluation mode.

    Parameters
    ----------
    state : dict
        Key -> tensor.
    metadata : Metadata
        Ours; empty in others' files.
    name : str
        Name of the file, for messages.
    expected : Expected
        What the caller wants of it.

    Raises
    ------
    SepViTError
        If it holds another model; the first missing, unexpected and misshapen keys are named.
    """
    state = {k: v for k, v in state.items() if not (k.startswith(_IGNORED) or is_counter(k))}
    config = _stored_config(metadata, name) or _guessed_config(state, name)
    _check(config, name, expected)
    config = replace(
        config,
        labels=config.labels if expected.labels is None else expected.labels,
        input_size=expected.input_size or config.input_size,
        window=expected.window or config.window,
    )
    differing = differences(state, config)
    if differing.count:
        raise SepViTError(
            f"{name} does not fit {find_variant(config.variant).name} with "
            f"{HEADS[config.head].name} and {config.num_classes} classes: {differing}"
        )
    model = empty_model(config)
    # Counters of batch norms are the only values that are not loaded.
    counters = {k: v.new_zeros((), device="cpu") for k, v in model.state_dict().items()}
    counters = {k: v for k, v in counters.items() if is_counter(k)}
    model.load_state_dict(float_weights(state, name) | counters, assign=True)
    return model.eval()


def _stored_config(metadata: Metadata, name: str) -> DenseConfig | None:
    if not metadata.dense:
        return None
    try:
        return metadata.dense.dense_config_of()
    except SepViTError as error:
        raise SepViTError(f"{name} has a damaged configuration: {error}") from None


def _guessed_config(state: Mapping[str, Any], name: str) -> DenseConfig:
    """Tell head, width, classes and variant of others' files by their shapes."""
    head = next((head for head, its in _SIGNATURES.items() if its.key in state), None)
    if head is None:
        raise SepViTError(f"{name} {_without_head(state)}; supported heads: {', '.join(HEADS)}")
    its = _SIGNATURES[head]
    variant = _variant_of(state)
    channels, outputs = shape_of(state.get(its.channels)), shape_of(state.get(its.classes))
    if variant is None or not channels or not outputs or outputs[0] % its.outputs:
        raise SepViTError(
            f"{name} has the head {HEADS[head].name}, but the shapes of its backbone or its last "
            "layer fit no variant of SepViT"
        )
    return DenseConfig(
        HEADS[head].task,
        head,
        variant.key,
        outputs[0] // its.outputs,
        channels=channels[0],
    )


def _variant_of(state: Mapping[str, Any]) -> Variant | None:
    start = len(BACKBONE)
    return guess_variant({k[start:]: v for k, v in state.items() if k.startswith(BACKBONE)})


def _without_head(state: Mapping[str, Any]) -> str:
    other = next((n for p, n in _OTHERS.items() if any(k.startswith(p) for k in state)), None)
    return "is a dense backbone without a head" if other is None else f"is {other}"


def _check(config: DenseConfig, name: str, expected: Expected) -> None:
    """Refuse a checkpoint of another task, head or variant than the caller wants."""
    found = f"{name} is a {HEADS[config.head].name}"
    if expected.task is not None and expected.task != config.task:
        raise SepViTError(f"{found}, for {config.task}, not for {expected.task}")
    if expected.head is not None and expected.head != config.head:
        if expected.head not in heads_of(config.task):
            raise SepViTError(
                f"{found}; the head {expected.head!r} is not one of {config.task}: "
                f"{', '.join(heads_of(config.task))}"
            )
        raise SepViTError(f"{found}, not a {HEADS[expected.head].name}")
    if expected.variant is not None and find_variant(expected.variant).key != config.variant:
        raise SepViTError(
            f"{found} on {find_variant(config.variant).name}, not on "
            f"{find_variant(expected.variant).name}"
        )
