"""Training of classifiers, float and quantisation-aware."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.source import weights_digest
from ..data.sample import Dataset as Images
from ..model.reference import SepViT, set_image_size
from ..model.variants import find_variant
from .augmented import draw_augmented
from .data import (
    BatchPreparation,
    TrainingImages,
    evaluation_batches,
    lost_workers_named,
    rule_of,
    training_batches,
)
from .loss import Loss
from .recipe import TrainingRecipe
from .state import Epoch, Setting
from .steps import StepPlan
from .teachers import Teacher
from .trainer import Trainer, start_accelerator


class Trainee(Protocol):
    """A model under training: normalised images (B, 3, size, size) in, logits (B, classes) out.

    Attributes
    ----------
    rounding : str
        Rounding that it trains with, as the options that ask for it; ``"none"`` in float.
    """

    rounding: str

    def set_image_size(self, image_size: int) -> None:
        """Prepare for images of another side."""
        ...


class FloatTrainee(nn.Module):
    """The reference model under training.

    Parameters
    ----------
    model : SepViT
        The model.
    channels : tuple of int
        Number of channels of a teacher's maps, which are predicted from the maps of the four
        stages; empty for none. The layers that do so are not part of the result.
    """

    rounding = "none"

    def __init__(self, model: SepViT, channels: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.model = model
        dims = find_variant(model.config.variant).dims
        self.projectors = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, wanted))
            for dim, wanted in zip(dims, channels, strict=False)
        )

    def set_image_size(self, image_size: int) -> None:
        """Prepare for images of another side; no weight depends on it."""
        if image_size != self.model.config.image_size:
            set_image_size(self.model, image_size)

    @overload
    def forward(self, x: Tensor, features: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, features: Literal[True]) -> tuple[Tensor, tuple[Tensor, ...]]: ...
    def forward(
        self, x: Tensor, features: bool = False
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """Compute logits (B, classes) of images (B, 3, size, size).

        With `features` also a teacher's maps (B, channels, side, side) of strides 4, 8, 16 and 32,
        as predicted.
        """
        if not features:
            return self.model(x)
        maps = self.model(x, features=True)
        guesses = tuple(
            projector(stage.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for projector, stage in zip(self.projectors, maps, strict=True)
        )
        pixels = self.model.norm(maps[-1].flatten(2).transpose(1, 2))
        return self.model.head(pixels.mean(1)), guesses


@lost_workers_named()
def run_training(
    trainee: nn.Module,
    recipe: TrainingRecipe,
    run: Path,
    images: TrainingImages,
    validation: Images | None,
    *,
    teacher: Teacher | None = None,
    workers: int = 0,
    resume: bool = False,
    report: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    epoch_done: Callable[[Epoch], None] = lambda epoch: None,
) -> nn.Module:
    """Train, and return the result: the best weights on `validation`, otherwise the last ones.

    Both are the moving average if the recipe has one.

    Parameters
    ----------
    trainee : torch.nn.Module
        A `Trainee`.
    recipe : TrainingRecipe
        Everything that the result depends on.
    run : Path
        Folder for state, history, TensorBoard's log, curves, augmented images and best weights.
    images : TrainingImages
        Images to train on.
    validation : Dataset, optional
        Images for the curve, for the choice of the best weights, and for stopping early.
    teacher : Teacher, optional
        Model for distillation.
    workers : int
        Number of processes that load images.
    resume : bool
        Continue from the run's saved state.
    report : callable
        Gets step, steps and loss after each step, in the main process.
    epoch_done : callable
        Gets each line of the history, in the main process.

    Returns
    -------
    torch.nn.Module
        A `Trainee` on the CPU, in evaluation mode.

    Raises
    ------
    SepViTError
        If the data is smaller than a batch, the loss diverges, or the saved state is of another
        recipe.
    """
    accelerator = start_accelerator()
    plan = StepPlan(recipe, len(images), accelerator.num_processes)
    plan.check()
    if accelerator.is_main_process:
        draw_augmented(images, recipe, run)
    trainer = _ClassifierTrainer(accelerator, trainee, plan, teacher, images.labels, run, resume)
    rank = accelerator.process_index
    batches = training_batches(images, plan, trainer.progress.step, rank, workers)
    return trainer.train(batches, validation, report, epoch_done)


class _ClassifierTrainer(Trainer):
    """Training of a classifier, which may learn from a teacher, at changing image sizes."""

    def __init__(
        self,
        accelerator: Any,
        trainee: nn.Module,
        plan: StepPlan,
        teacher: Teacher | None,
        labels: tuple[str, ...],
        run: Path,
        resume: bool,
    ) -> None:
        rounding = cast(Trainee, trainee).rounding
        digest = weights_digest(teacher) if teacher is not None else ""
        setting = Setting(labels, plan.images, plan.world, rounding, digest)
        super().__init__(accelerator, trainee, plan, setting, run, resume)
        if teacher is not None:
            teacher.to(self.device)
        self._batches = BatchPreparation.of(plan.recipe, len(labels), self.device)
        smoothing = 0.0 if self._batches.mix is not None else plan.recipe.label_smoothing
        self._loss = Loss(plan.recipe, trainee, self.model, teacher, smoothing)

    def loss(self, pixels: Tensor, truth: Tensor) -> Tensor:
        """Compute the loss of uint8 pixels (B, 3, size, size) and classes (B,)."""
        cast(Trainee, self.trainee).set_image_size(pixels.shape[-1])
        return self._loss(*self._batches.prepare(pixels, truth))

    def measure(self, validation: Images | None, image_size: int) -> dict[str, float]:
        """Return the top-1 accuracy."""
        result = self.result
        cast(Trainee, result).set_image_size(image_size)
        if validation is None:
            return {}
        top1 = evaluate_top1(result, validation, self.plan.recipe, image_size, self.device)
        return {"validation_top1": top1}


@torch.no_grad()
def evaluate_logits(
    model: nn.Module,
    data: Images,
    recipe: TrainingRecipe,
    image_size: int,
    device: torch.device | str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the logits of a trainee in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        A `Trainee`.
    data : Dataset
        Labelled images.
    recipe : TrainingRecipe
        States the preprocessing.
    image_size : int
        Side of the model's input.
    device : torch.device or str
        Device of the model.

    Returns
    -------
    tuple of numpy.ndarray
        float32 logits (N, classes), and labels (N,).
    """
    training = model.training
    model.eval()
    rule = rule_of(recipe)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) * 255 for v in (rule.mean, rule.std))
    logits, truth = [], []
    for pixels, labels in evaluation_batches(data, rule, image_size):
        x = ((pixels.float() - mean) / std).to(device)
        logits.append(model(x).float().cpu())
        truth.append(labels)
    model.train(training)
    return torch.cat(logits).numpy(), torch.cat(truth).numpy()


def evaluate_top1(
    model: nn.Module,
    data: Images,
    recipe: TrainingRecipe,
    image_size: int,
    device: torch.device | str = "cpu",
) -> float:
    """Measure the top-1 accuracy of a trainee, 0..1; parameters are those of `evaluate_logits`."""
    logits, labels = evaluate_logits(model, data, recipe, image_size, device)
    return float((logits.argmax(1) == labels).mean())
