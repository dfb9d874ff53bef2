"""The training loss: labels, a teacher's answers, and the noise that rounding leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.reference import SepViT, set_image_size
from .recipe import TrainingRecipe


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, as the recipe weighs its parts.

    Parameters
    ----------
    recipe : TrainingRecipe
        Weights of the parts.
    trainee : torch.nn.Module
        Model under training; with `rounding_noise` a quantisation-aware one.
    model : torch.nn.Module
        The same, as it is called: wrapped where several devices train.
    teacher : SepViT, optional
        Model to learn from.
    smoothing : float
        Label smoothing; 0 where the labels are mixed, which smooths them already.
    """

    recipe: TrainingRecipe
    trainee: nn.Module
    model: nn.Module
    teacher: SepViT | None
    smoothing: float

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        x : Tensor
            Normalised images (B, 3, size, size).
        y : Tensor
            Classes (B,), or their probabilities (B, classes).

        Returns
        -------
        Tensor
            A scalar.
        """
        with autocast(self.recipe, x.device):
            logits = self.model(x).float()
            loss = self._answers(logits, x, y)
            if self.recipe.rounding_noise:
                with cast(Any, self.trainee).unrounded():
                    clean = self.model(x).float()
                loss = loss + self.recipe.rounding_noise * noise_share(logits, clean)
            return loss

    def _answers(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Weigh the distance to the labels against the distance to the teacher."""
        loss = F.cross_entropy(logits, y, label_smoothing=self.smoothing)
        weight, t = self.recipe.distillation.weight, self.recipe.distillation.temperature
        if self.teacher is None or not weight:
            return loss
        if self.teacher.config.image_size != x.shape[-1]:
            set_image_size(self.teacher, x.shape[-1])
        with torch.no_grad():
            wanted = self.teacher(x).float()
        distance = F.kl_div(
            F.log_softmax(logits / t, 1),
            F.log_softmax(wanted / t, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - weight) * loss + weight * t * t * distance


def autocast(recipe: TrainingRecipe, device: torch.device) -> torch.autocast:
    """Return the context in which a recipe's precision applies."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def noise_share(logits: Tensor, clean: Tensor) -> Tensor:
    """Compute the power of the difference of two sets of logits, as a share of the second's.

    Each row counts from its mean: a constant added to all logits of an image changes no answer,
    and must not make the noise look smaller.

    Parameters
    ----------
    logits, clean : Tensor
        Logits (B, classes).

    Returns
    -------
    Tensor
        A scalar.
    """
    clean = clean - clean.mean(1, keepdim=True)
    logits = logits - logits.mean(1, keepdim=True)
    return (logits - clean).square().sum() / clean.square().sum()
