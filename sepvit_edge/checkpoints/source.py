"""The origin of a model's weights, and their digest."""

from __future__ import annotations

import hashlib

from torch import nn

from ..model.create import ReferenceModel
from ..model.variants import Source
from .fitting import is_counter


def source_of(model: ReferenceModel) -> Source:
    """Return the origin of a model's weights; only their digest if they have changed since."""
    digest = weights_digest(model)
    known = model.source
    return known if known and known.weights_sha256 == digest else Source(digest)


def weights_digest(model: nn.Module) -> str:
    """Compute the SHA-256 of a model's float32 state dict and of a SepViT's quantisation."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if is_counter(key):
            continue
        digest.update(f"{key} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().data)
    quantization = getattr(model, "quantization", None)
    if quantization is not None:
        digest.update(quantization.sha256.encode())
    return digest.hexdigest()
