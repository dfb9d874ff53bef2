"""The training loop: one for float and quantisation-aware models, on one device or many.

Any step can be repeated exactly. Batches, image size and learning rate are functions of the step's
number, and each step seeds the generators, so a run that was killed continues from its last saved
state along the curve that it would have had.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
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
    seed_everything,
    training_batches,
)
from .log import RunLog
from .loss import Loss, check_loss
from .optimizer import create_optimizer, create_schedule, head_parameters
from .recipe import TrainingRecipe
from .state import (
    Epoch,
    Progress,
    Setting,
    best_epoch,
    is_stuck,
    load_best,
    restore_state,
    save_best,
    save_state,
)
from .steps import StepPlan
from .teachers import Teacher

SAVE_SECONDS = 120.0


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
    from accelerate import Accelerator

    # Second moments of near-dead weights decay into denormals, which a CPU computes in microcode.
    torch.set_flush_denormal(True)
    # `autocast` in loss.py sets the precision: accelerate keeps that of a process's first run.
    accelerator = Accelerator(mixed_precision="no")
    main, rank = accelerator.is_main_process, accelerator.process_index
    plan = StepPlan(recipe, len(images), accelerator.num_processes)
    plan.check()
    if main:
        draw_augmented(images, recipe, run)
    trainer = _Trainer.start(accelerator, trainee, plan, teacher, images.labels, run, resume)
    progress = trainer.progress
    log = RunLog(run, progress.step, plan.steps) if main else None
    batches = training_batches(images, plan, progress.step, rank, workers)
    before, start = progress.seconds, time.monotonic()
    saved = start
    for step, (pixels, classes) in enumerate(batches, progress.step):
        loss = trainer.step(step, pixels, classes)
        if log is not None:
            report(step + 1, plan.steps, loss)
            log.step(step, loss, trainer.learning_rate)
        if plan.ends_epoch(step):
            line = trainer.end_epoch(step, pixels.shape[-1], validation)
            if main and trainer.is_best(line):
                save_best(run, trainer.result)
            if log is not None:
                log.epoch(line)
                epoch_done(line)
        now = time.monotonic()
        due = plan.ends_epoch(step) or now - saved > SAVE_SECONDS
        if main and due and plan.updates_after(step):
            progress.seconds = before + now - start
            trainer.save(run)
            saved = now
        if plan.ends_epoch(step) and trainer.is_stuck:
            break
    if log is not None:
        log.close(progress.history)
    return trainer.finished(run)


@dataclass
class _Trainer:
    """Model, optimizer and progress of a run.

    Attributes
    ----------
    accelerator : accelerate.Accelerator
        Devices and processes.
    plan : StepPlan
        Steps of the run.
    trainee, model : torch.nn.Module
        Trainee, and the same as it is called: wrapped where several devices train.
    optimizer, schedule, average : object
        AdamW, its learning rate over the updates, and the weights' moving average or None.
    batches : BatchPreparation
        Normalisation and augmentation of batches.
    loss : Loss
        Loss of a batch.
    setting : Setting
        What the run's curve depends on besides the recipe.
    progress : Progress
        How far the run is; `loss_sum` is brought up to date by `save`.
    loss_sum : Tensor
        Sum of the losses in this epoch, on the device, float32.
    """

    accelerator: Any
    plan: StepPlan
    trainee: nn.Module
    model: nn.Module
    optimizer: Any
    schedule: Any
    average: Any
    batches: BatchPreparation
    loss: Loss
    setting: Setting
    progress: Progress
    loss_sum: Tensor

    @classmethod
    def start(
        cls,
        accelerator: Any,
        trainee: nn.Module,
        plan: StepPlan,
        teacher: Teacher | None,
        labels: tuple[str, ...],
        run: Path,
        resume: bool,
    ) -> _Trainer:
        """Put everything on its device, in its first or its saved state."""
        from timm.utils import ModelEmaV3

        recipe, device = plan.recipe, accelerator.device
        optimizer = create_optimizer(trainee, recipe)
        schedule = create_schedule(optimizer, plan)
        trainee.to(device)
        average = ModelEmaV3(trainee, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        progress = Progress()
        rounding = cast(Trainee, trainee).rounding
        digest = weights_digest(teacher) if teacher is not None else ""
        setting = Setting(labels, plan.images, plan.world, rounding, digest)
        if resume:
            kept = average.module if average is not None else None
            progress = restore_state(run, recipe, setting, trainee, kept, optimizer)
        model, optimizer = accelerator.prepare(trainee, optimizer)
        batches = BatchPreparation.of(recipe, len(labels), device)
        if teacher is not None:
            teacher.to(device)
        smoothing = 0.0 if batches.mix is not None else recipe.label_smoothing
        loss = Loss(recipe, trainee, model, teacher, smoothing)
        loss_sum = torch.full((), progress.loss_sum, device=device)
        model.train()
        return cls(
            accelerator,
            plan,
            trainee,
            model,
            optimizer,
            schedule,
            average,
            batches,
            loss,
            setting,
            progress,
            loss_sum,
        )

    @property
    def learning_rate(self) -> float:
        """Learning rate of the classifier at the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @property
    def is_stuck(self) -> bool:
        """Whether validation top-1 has not improved for the recipe's `patience`."""
        return is_stuck(self.progress.history, self.plan.recipe.patience, self.plan.epochs)

    def is_best(self, line: Epoch) -> bool:
        """Return whether an epoch's weights are the best so far."""
        return best_epoch(self.progress.history) is line

    def finished(self, run: Path) -> nn.Module:
        """Return the result on the CPU in evaluation mode: the best weights, or the last ones."""
        result = self.result.to("cpu").eval()
        if self.accelerator.is_main_process and best_epoch(self.progress.history):
            load_best(run, result)
        return result

    @property
    def result(self) -> nn.Module:
        """The moving average if there is one, otherwise the trainee."""
        return self.trainee if self.average is None else cast(nn.Module, self.average.module)

    def step(self, step: int, pixels: Tensor, classes: Tensor) -> float:
        """Train on one batch, and return its loss.

        Parameters
        ----------
        step : int
            Number of the step, counted from 0.
        pixels : Tensor
            uint8 (B, 3, size, size).
        classes : Tensor
            Labels (B,).

        Raises
        ------
        SepViTError
            If the loss is not finite.
        """
        recipe, accelerator = self.plan.recipe, self.accelerator
        cast(Trainee, self.trainee).set_image_size(pixels.shape[-1])
        seed_everything(step_seed(recipe.seed, step, accelerator.process_index))
        loss = self.loss(*self.batches.prepare(pixels, classes))
        if self.plan.updates_after(step):
            accelerator.backward(loss / recipe.accumulate)
            self._update(step // recipe.accumulate)
        else:
            with accelerator.no_sync(self.model):
                accelerator.backward(loss / recipe.accumulate)
        value = loss.detach()
        check_loss(value.item(), step, recipe)
        self.loss_sum += value
        self.progress.step = step + 1
        return value.item()

    def _update(self, update: int) -> None:
        """Change the weights by the gradients that were added up."""
        self.schedule.step_update(update)
        if update < self.plan.head_updates:
            head = head_parameters(self.trainee)
            for parameter in self.trainee.parameters():
                if parameter not in head:
                    parameter.grad = None
        clip = self.plan.recipe.clip
        if clip:
            weights = [p for p in self.model.parameters() if p.ndim]
            self.accelerator.clip_grad_norm_(weights, clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.trainee, step=update)

    def end_epoch(self, step: int, image_size: int, validation: Images | None) -> Epoch:
        """Add a line to the history: mean loss, and accuracy on validation images."""
        if self.accelerator.num_processes > 1:
            self.loss_sum = self.accelerator.reduce(self.loss_sum, "mean")
        kept = self.result
        cast(Trainee, kept).set_image_size(image_size)
        top1 = None
        if validation is not None:
            recipe, device = self.plan.recipe, self.accelerator.device
            top1 = evaluate_top1(kept, validation, recipe, image_size, device)
        line = Epoch(
            epoch=self.plan.epoch(step),
            step=step + 1,
            image_size=image_size,
            learning_rate=float(f"{self.learning_rate:.4g}"),
            loss=float(f"{self.loss_sum.item() / self.plan.steps_in_epoch(step):.5g}"),
            validation_top1=top1,
        )
        self.progress.history.append(line)
        self.loss_sum.zero_()
        self.model.train()
        return line

    def save(self, run: Path) -> None:
        """Save the run's state."""
        self.progress.loss_sum = float(self.loss_sum)
        average = self.average.module if self.average is not None else None
        recipe = self.plan.recipe
        save_state(run, recipe, self.setting, self.progress, self.trainee, average, self.optimizer)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of a step on a device."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


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
