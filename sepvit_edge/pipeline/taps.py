"""Distance between a package and the reference at every part of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from ..metrics import sqnr_db
from ..model.create import ReferenceModel
from ..model.dense import DenseModel
from ..model.dense.backbone import DenseBackbone
from ..model.dense.neck import FPN
from ..model.edge.dense.network import OUTPUTS
from ..model.logits import as_tuple, normalize
from ..model.reference import SepViTBlock
from .parity import LEAST_SQNR_DB, rounded


@dataclass(frozen=True)
class TapDistance:
    """Distance between a tapped twin and the reference at one point of the network.

    Attributes
    ----------
    name : str
        Stage, block and part, ``"stages.2.blocks.4.psa"``; or ``"logits"``.
    max_abs_error, sqnr_db : float
        Distance of its output to the reference's, over all images.
    leaves : bool
        True if the distance is larger than the precision explains.
    """

    name: str
    max_abs_error: float
    sqnr_db: float
    leaves: bool


def by_block(
    outputs: dict[str, np.ndarray], model: ReferenceModel, pixels: np.ndarray, precision: str
) -> list[TapDistance]:
    """Compare a tapped twin with the reference, part by part in the order of the network.

    Parameters
    ----------
    outputs : dict
        The twin's outputs by name (`sepvit_edge.pipeline.twins.run_twin`).
    model : SepViT or DenseModel
        The reference.
    pixels : numpy.ndarray
        uint8 (B, H, W, 3) that the twin ran on.
    precision : str
        The package's; sets the distance that rounding explains.

    Returns
    -------
    list of TapDistance
        In the order of the network. Look at the first that leaves; later ones inherit its error.
    """
    references = reference_taps(model, pixels)
    distances = []
    for name, reference in references.items():
        if name not in outputs:  # folded into another part: PSA over one window of a dense model
            continue
        measured = outputs[name].reshape(reference.shape)
        noise = sqnr_db(reference, measured)
        error = float(np.abs(reference - measured).max())
        leaves = noise < LEAST_SQNR_DB[precision]
        distances.append(TapDistance(name, rounded(error), round(noise, 1), leaves))
    return distances


def reference_taps(model: ReferenceModel, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Run the reference and return the output of every part, under the edge form's names.

    Returns
    -------
    dict
        Arrays (rows, C) in the order that the network computes them, then the model's outputs by
        their names.
    """
    backbone = model.backbone if isinstance(model, DenseModel) else model
    taps: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, arguments: object, output: torch.Tensor | None = None) -> None:
            value = arguments[0] if output is None else output  # type: ignore[index]
            taps[name] = value.reshape(-1, value.shape[-1]).float().cpu().numpy().copy()

        return hook

    with ExitStack() as stack, torch.no_grad():
        for i in range(4):
            embed, cpe = backbone.patch_embeds[i], backbone.pos_block[i]
            hooks = [embed.register_forward_hook(keep(f"stages.{i}.patch_embedding"))]
            for j, block in enumerate(cast(list[SepViTBlock], backbone.blocks[i])):
                name = f"stages.{i}.blocks.{j}"
                # DSA and PSA are methods, not modules: wrap them on this instance.
                stack.enter_context(_tapped(block.attn, "depthwise", keep(f"{name}.dsa")))
                stack.enter_context(_tapped(block.attn, "pointwise", keep(f"{name}.psa")))
                # norm2 takes what the first residual gives.
                hooks.append(block.norm2.register_forward_pre_hook(keep(f"{name}.proj")))
                hooks.append(block.register_forward_hook(keep(f"{name}.mlp")))
            hooks.append(cpe.register_forward_hook(keep(f"stages.{i}.cpe")))
            if isinstance(backbone, DenseBackbone):
                norm = backbone.norm_list[i]
                hooks.append(norm.register_forward_hook(keep(f"stages.{i}.norm")))
            for hook in hooks:
                stack.callback(hook.remove)
        if isinstance(model, DenseModel) and isinstance(neck := getattr(model, "neck", None), FPN):
            stack.callback(neck.register_forward_hook(_keep_levels(taps)).remove)
        x = normalize(model, torch.from_numpy(pixels))
        outputs = as_tuple(model(x.to(next(model.parameters()).device)))
    names = OUTPUTS[model.config.answer] if isinstance(model, DenseModel) else ("logits",)
    arrays = [output.float().cpu().numpy() for output in outputs]
    return taps | dict(zip(names, arrays, strict=True))


def _keep_levels(taps: dict[str, np.ndarray]) -> Callable[..., None]:
    def hook(_module: object, _arguments: object, levels: list[torch.Tensor]) -> None:
        for i, level in enumerate(levels):
            rows = level.permute(0, 2, 3, 1).reshape(-1, level.shape[1])
            taps[f"neck.{i}"] = rows.float().cpu().numpy().copy()

    return hook


@contextmanager
def _tapped(owner: object, method: str, keep: Callable[..., None]) -> Iterator[None]:
    original = getattr(owner, method)

    def wrapped(x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = original(x)
        keep(owner, x, output)
        return output

    # Past nn.Module's own __setattr__, and gone again when the block ends.
    vars(owner)[method] = wrapped
    try:
        yield
    finally:
        del vars(owner)[method]
