"""The loop of every training run, on one device or many.

Any step can be repeated exactly. Batches, image size and learning rate are functions of the step's
number, and each step seeds the generators, so a run that was killed continues from its last saved
state along the curve that it would have had.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .data import seed_everything
from .log import RunLog
from .loss import check_loss
from .optimizer import create_optimizer, create_schedule, head_parameters
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

SAVE_SECONDS = 120.0


def start_accelerator() -> Any:
    """Return accelerate's `Accelerator` over the devices of this run."""
    from accelerate import Accelerator

    # Second moments of near-dead weights decay into denormals, which a CPU computes in microcode.
    torch.set_flush_denormal(True)
    # `autocast` in loss.py sets the precision: accelerate keeps that of a process's first run.
    return Accelerator(mixed_precision="no")


class Trainer(ABC):
    """Model, optimizer and progress of a run; a task adds its loss and its validation figure.

    Parameters
    ----------
    accelerator : accelerate.Accelerator
        Devices and processes.
    trainee : torch.nn.Module
        Model under training.
    plan : StepPlan
        Steps of the run.
    setting : Setting
        What the run's curve depends on besides the recipe.
    run : Path
        Folder for state, history, TensorBoard's log, curves and best weights.
    resume : bool
        Continue from the run's saved state.

    Attributes
    ----------
    model : torch.nn.Module
        The trainee as it is called: wrapped where several devices train.
    progress : Progress
        How far the run is; `loss_sum` is brought up to date by `save`.

    Raises
    ------
    SepViTError
        If the saved state is of another recipe.
    """

    def __init__(
        self,
        accelerator: Any,
        trainee: nn.Module,
        plan: StepPlan,
        setting: Setting,
        run: Path,
        resume: bool,
    ) -> None:
        from timm.utils import ModelEmaV3

        recipe, self.device = plan.recipe, cast(torch.device, accelerator.device)
        self.accelerator, self.plan, self.setting, self.run = accelerator, plan, setting, run
        self.trainee = trainee.to(self.device)
        optimizer = create_optimizer(trainee, recipe)
        self.schedule = create_schedule(optimizer, plan)
        self.average: Any = None
        if recipe.ema:
            self.average = ModelEmaV3(trainee, decay=recipe.ema, use_warmup=True)
        self.progress = Progress()
        if resume:
            kept = self.average.module if self.average is not None else None
            self.progress = restore_state(run, recipe, setting, trainee, kept, optimizer)
        self.loss_sum = torch.full((), self.progress.loss_sum, device=self.device)
        self.model, self.optimizer = accelerator.prepare(trainee, optimizer)
        self.model.train()

    @abstractmethod
    def loss(self, pixels: Tensor, truth: Any) -> Tensor:
        """Compute the loss, a scalar, of uint8 pixels (B, 3, H, W) and what is true of them."""

    @abstractmethod
    def measure(self, validation: Any, image_size: int) -> dict[str, float]:
        """Return the field of `Epoch` that `result` has on validation images; none without any."""

    def train(
        self,
        batches: Iterable[tuple[Tensor, Any]],
        validation: Any,
        report: Callable[[int, int, float], None],
        epoch_done: Callable[[Epoch], None],
    ) -> nn.Module:
        """Train to the end, and return the result on the CPU, in evaluation mode.

        It is the best weights on `validation`, otherwise the last ones.

        Parameters
        ----------
        batches : iterable
            Pixels and truth of each step that is left.
        validation : object
            Images for `measure`; None trains without a curve.
        report, epoch_done : callable
            See `sepvit_edge.training.loop.run_training`.

        Raises
        ------
        SepViTError
            If the loss diverges.
        """
        main, plan, progress = self.accelerator.is_main_process, self.plan, self.progress
        log = RunLog(self.run, progress.step, plan.steps) if main else None
        before, start = progress.seconds, time.monotonic()
        saved = start
        for step, (pixels, truth) in enumerate(batches, progress.step):
            loss = self.step(step, pixels, truth)
            if log is not None:
                report(step + 1, plan.steps, loss)
                log.step(step, loss, self.learning_rate)
            if plan.ends_epoch(step):
                line = self.end_epoch(step, max(pixels.shape[-2:]), validation)
                if log is not None:
                    if best_epoch(progress.history) is line:
                        save_best(self.run, self.result)
                    log.epoch(line)
                    epoch_done(line)
            now = time.monotonic()
            due = plan.ends_epoch(step) or now - saved > SAVE_SECONDS
            if main and due and plan.updates_after(step):
                progress.seconds = before + now - start
                self.save()
                saved = now
            if plan.ends_epoch(step) and self.is_stuck:
                break
        if log is not None:
            log.close(progress.history)
        result = self.result.to("cpu").eval()
        if main and best_epoch(progress.history):
            load_best(self.run, result)
        return result

    @property
    def learning_rate(self) -> float:
        """Learning rate of the head at the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @property
    def is_stuck(self) -> bool:
        """Whether the validation figure has not improved for the recipe's `patience`."""
        return is_stuck(self.progress.history, self.plan.recipe.patience, self.plan.epochs)

    @property
    def result(self) -> nn.Module:
        """The moving average if there is one, otherwise the trainee."""
        return self.trainee if self.average is None else cast(nn.Module, self.average.module)

    def step(self, step: int, pixels: Tensor, truth: Any) -> float:
        """Train on one batch, and return its loss.

        Parameters
        ----------
        step : int
            Number of the step, counted from 0.
        pixels : Tensor
            uint8 (B, 3, H, W).
        truth : object
            What the batches have beside the pixels.

        Raises
        ------
        SepViTError
            If the loss is not finite.
        """
        recipe, accelerator = self.plan.recipe, self.accelerator
        seed_everything(step_seed(recipe.seed, step, accelerator.process_index))
        loss = self.loss(pixels, truth)
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

    def end_epoch(self, step: int, image_size: int, validation: Any) -> Epoch:
        """Add a line to the history: mean loss, and the figure on validation images."""
        if self.accelerator.num_processes > 1:
            self.loss_sum = self.accelerator.reduce(self.loss_sum, "mean")
        line = Epoch(
            epoch=self.plan.epoch(step),
            step=step + 1,
            image_size=image_size,
            learning_rate=float(f"{self.learning_rate:.4g}"),
            loss=float(f"{self.loss_sum.item() / self.plan.steps_in_epoch(step):.5g}"),
            **self.measure(validation, image_size),
        )
        self.progress.history.append(line)
        self.loss_sum.zero_()
        self.model.train()
        return line

    def save(self) -> None:
        """Save the run's state."""
        self.progress.loss_sum = float(self.loss_sum)
        average = self.average.module if self.average is not None else None
        recipe, progress = self.plan.recipe, self.progress
        save_state(self.run, recipe, self.setting, progress, self.trainee, average, self.optimizer)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of a step on a device."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
