"""The training loop of dense models, on one device.

As in `sepvit_edge.training.loop`, batches and learning rate are functions of the step's number and
each step seeds the generators: a run that was killed continues along the curve it would have had.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.dense.sample import DenseDataset
from ...model.dense import DenseModel
from ...package.postprocessing import DetectionRule
from ...pipeline.facts import postprocessing_of
from ..data import BatchPreparation, lost_workers_named, seed_everything, training_batches
from ..log import RunLog
from ..loop import SAVE_SECONDS, step_seed
from ..loss import autocast, check_loss
from ..optimizer import create_optimizer, create_schedule
from ..recipe import TrainingRecipe
from ..state import (
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
from ..steps import StepPlan
from .figure import validation_figure
from .images import DenseImages
from .losses import AnchorLoss, pixel_loss


@lost_workers_named()
def run_dense_training(
    model: DenseModel,
    recipe: TrainingRecipe,
    run: Path,
    images: DenseImages,
    validation: DenseDataset | None,
    *,
    workers: int = 0,
    resume: bool = False,
    report: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    epoch_done: Callable[[Epoch], None] = lambda epoch: None,
) -> DenseModel:
    """Train, and return the result: the best weights on `validation`, otherwise the last ones.

    Parameters
    ----------
    model : DenseModel
        Model to train.
    recipe : TrainingRecipe
        Everything that the result depends on.
    run : Path
        Folder for state, history, TensorBoard's log, curves and best weights.
    images : DenseImages
        Images to train on.
    validation : DenseDataset, optional
        Images for the curve, and for the choice of the best weights.
    workers, resume, report, epoch_done
        See `sepvit_edge.training.loop.run_training`.

    Returns
    -------
    DenseModel
        On the CPU, in evaluation mode.

    Raises
    ------
    SepViTError
        If the data is smaller than a batch, the loss diverges, or the saved state is of another
        recipe.
    """
    torch.set_flush_denormal(True)
    plan = StepPlan(recipe, len(images), 1)
    plan.check()
    trainer = _Trainer(model, plan, run, resume)
    progress = trainer.progress
    log = RunLog(run, progress.step, plan.steps)
    before, start = progress.seconds, time.monotonic()
    saved = start
    batches = training_batches(images, plan, progress.step, 0, workers)
    for step, (pixels, truth) in enumerate(batches, progress.step):
        loss = trainer.step(step, pixels, truth)
        report(step + 1, plan.steps, loss)
        log.step(step, loss, trainer.learning_rate)
        if plan.ends_epoch(step):
            line = trainer.end_epoch(step, validation)
            if best_epoch(progress.history) is line:
                save_best(run, trainer.result)
            log.epoch(line)
            epoch_done(line)
        now = time.monotonic()
        due = plan.ends_epoch(step) or now - saved > SAVE_SECONDS
        if due and plan.updates_after(step):
            progress.seconds = before + now - start
            trainer.save(run)
            saved = now
        if plan.ends_epoch(step) and is_stuck(progress.history, recipe.patience, plan.epochs):
            break
    log.close(progress.history)
    result = trainer.result.to("cpu").eval()
    if best_epoch(progress.history):
        load_best(run, result)
    return result


class _Trainer:
    """Model, optimizer and progress of a run."""

    def __init__(self, model: DenseModel, plan: StepPlan, run: Path, resume: bool) -> None:
        from timm.utils import ModelEmaV3

        recipe = plan.recipe
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.plan = model.to(self.device), plan
        self.optimizer = create_optimizer(model, recipe)
        self.schedule = create_schedule(self.optimizer, plan)
        self.average: Any = None
        if recipe.ema:
            self.average = ModelEmaV3(model, decay=recipe.ema, use_warmup=True)
        self.setting = Setting(model.config.labels, plan.images, 1, "none", "")
        self.progress = Progress()
        if resume:
            kept = self.average.module if self.average is not None else None
            self.progress = restore_state(run, recipe, self.setting, model, kept, self.optimizer)
        self._batches = BatchPreparation.of(recipe, len(model.config.labels), self.device)
        self._anchors = None
        rule = postprocessing_of(recipe.task)
        if isinstance(rule, DetectionRule):
            self._anchors = AnchorLoss(rule, model.config.input_size, recipe.dense.box_weight)
        model.train()

    @property
    def learning_rate(self) -> float:
        """Learning rate of the head at the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @property
    def result(self) -> DenseModel:
        """The moving average if there is one, otherwise the model."""
        result: DenseModel = self.model if self.average is None else self.average.module
        return result

    def step(self, step: int, pixels: Tensor, truth: Any) -> float:
        """Train on one batch, and return its loss.

        Raises
        ------
        SepViTError
            If the loss is not finite.
        """
        recipe = self.plan.recipe
        seed_everything(step_seed(recipe.seed, step, 0))
        x = self._batches.normalized(pixels)
        with autocast(recipe, self.device):
            loss = self._loss(self.model(x), truth)
        value = loss.item()
        check_loss(value, step, recipe)
        (loss / recipe.accumulate).backward()
        if self.plan.updates_after(step):
            self._update(step // recipe.accumulate)
        self.progress.loss_sum += value
        self.progress.step = step + 1
        return value

    def _loss(self, outputs: Any, truth: Any) -> Tensor:
        if self._anchors is None:
            return pixel_loss(outputs, truth.to(self.device))
        moved = [(boxes.to(self.device), classes.to(self.device)) for boxes, classes in truth]
        return self._anchors(outputs, moved)

    def _update(self, update: int) -> None:
        """Change the weights by the gradients that were added up."""
        self.schedule.step_update(update)
        clip = self.plan.recipe.clip
        if clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.model, step=update)

    def end_epoch(self, step: int, validation: DenseDataset | None) -> Epoch:
        """Add a line to the history: mean loss, and the figure on validation images."""
        segments = self.plan.recipe.task == "segmentation"
        figure = None if validation is None else validation_figure(self.result, validation)
        line = Epoch(
            epoch=self.plan.epoch(step),
            step=step + 1,
            image_size=max(self.model.config.input_size),
            learning_rate=float(f"{self.learning_rate:.4g}"),
            loss=float(f"{self.progress.loss_sum / self.plan.steps_in_epoch(step):.5g}"),
            validation_miou=figure if segments else None,
            validation_ap50=None if segments else figure,
        )
        self.progress.history.append(line)
        self.progress.loss_sum = 0.0
        return line

    def save(self, run: Path) -> None:
        """Save the run's state."""
        average = self.average.module if self.average is not None else None
        recipe, progress = self.plan.recipe, self.progress
        save_state(run, recipe, self.setting, progress, self.model, average, self.optimizer)
