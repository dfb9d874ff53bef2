"""The training loss: labels, a teacher's answers, and the noise that rounding leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SepViTError
from .recipe import TrainingRecipe
from .teachers import Teacher


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
    teacher : Teacher, optional
        Model to learn from.
    smoothing : float
        Label smoothing; 0 where the labels are mixed, which smooths them already.
    """

    recipe: TrainingRecipe
    trainee: nn.Module
    model: nn.Module
    teacher: Teacher | None
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
            if self.recipe.distillation.features:
                logits, features = self.model(x, features=True)
            else:
                logits, features = self.model(x), ()
            logits = logits.float()
            loss = self._answers(logits, features, x, y)
            if self.recipe.rounding_noise:
                with cast(Any, self.trainee).unrounded():
                    clean = self.model(x).float()
                loss = loss + self.recipe.rounding_noise * noise_share(logits, clean)
            return loss

    def _answers(
        self, logits: Tensor, features: tuple[Tensor, ...], x: Tensor, y: Tensor
    ) -> Tensor:
        """Weigh the distance to the labels against the distances to the teacher."""
        how = self.recipe.distillation
        loss = F.cross_entropy(logits, y, label_smoothing=self.smoothing)
        if self.teacher is None or not how.weight:
            return loss
        wanted = self.teacher(x)
        t = how.temperature
        distance = F.kl_div(
            F.log_softmax(logits / t, 1),
            F.log_softmax(wanted.logits / t, 1),
            reduction="batchmean",
            log_target=True,
        )
        loss = (1 - how.weight) * loss + how.weight * t * t * distance
        if features:
            pairs = zip(features, wanted.features, strict=True)
            distances = [feature_distance(guess, feature) for guess, feature in pairs]
            loss = loss + how.features * torch.stack(distances).mean()
        return loss


def feature_distance(features: Tensor, wanted: Tensor) -> Tensor:
    """Compute the mean squared distance of two maps (B, C, H, W), the second one standardised.

    Each channel of `wanted` gets mean 0 and variance 1 over the batch, so that none outweighs the
    others; a trainee that learnt nothing scores 1.
    """
    wanted = F.batch_norm(wanted, None, None, training=True)
    return F.mse_loss(features.float(), wanted)


def check_loss(value: float, step: int, recipe: TrainingRecipe) -> None:
    """Refuse to go on with a loss that is not finite; the step is counted from 0.

    Raises
    ------
    SepViTError
        If it is not.
    """
    if not math.isfinite(value):
        raise SepViTError(
            f"the loss is {value} at step {step + 1}; lower the learning rate "
            f"({recipe.learning_rate:g}) and start again"
        )


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
