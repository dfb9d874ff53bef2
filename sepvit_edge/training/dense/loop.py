"""Training of segmentation and detection models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ...data.dense.sample import DenseDataset
from ...model.dense import DenseModel
from ...package.postprocessing import DetectionRule
from ...pipeline.facts import postprocessing_of
from ..data import BatchPreparation, lost_workers_named, training_batches
from ..loss import autocast
from ..recipe import TrainingRecipe
from ..state import Epoch, Setting
from ..steps import StepPlan
from ..trainer import Trainer, start_accelerator
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
    accelerator = start_accelerator()
    plan = StepPlan(recipe, len(images), accelerator.num_processes)
    plan.check()
    trainer = _DenseTrainer(accelerator, model, plan, run, resume)
    rank = accelerator.process_index
    batches = training_batches(images, plan, trainer.progress.step, rank, workers)
    return cast(DenseModel, trainer.train(batches, validation, report, epoch_done))


class _DenseTrainer(Trainer):
    """Training of a segmentation or detection model."""

    def __init__(
        self, accelerator: Any, model: DenseModel, plan: StepPlan, run: Path, resume: bool
    ) -> None:
        recipe, config = plan.recipe, model.config
        setting = Setting(config.labels, plan.images, plan.world, "none", "")
        super().__init__(accelerator, model, plan, setting, run, resume)
        self._batches = BatchPreparation.of(recipe, len(config.labels), self.device)
        self._anchors = None
        rule = postprocessing_of(recipe.task)
        if isinstance(rule, DetectionRule):
            self._anchors = AnchorLoss(rule, config.input_size, recipe.dense.box_weight)

    def loss(self, pixels: Tensor, truth: Any) -> Tensor:
        """Compute the loss of uint8 pixels (B, 3, H, W) and their masks, or boxes and classes."""
        x = self._batches.normalized(pixels)
        with autocast(self.plan.recipe, self.device):
            outputs = self.model(x)
            if self._anchors is None:
                return pixel_loss(outputs, truth.to(self.device))
            moved = [(boxes.to(self.device), classes.to(self.device)) for boxes, classes in truth]
            return self._anchors(outputs, moved)

    def measure(self, validation: DenseDataset | None, image_size: int) -> dict[str, float]:
        """Return the mean IoU or the AP50."""
        if validation is None:
            return {}
        segments = self.plan.recipe.task == "segmentation"
        figure = validation_figure(cast(DenseModel, self.result), validation)
        return {"validation_miou" if segments else "validation_ap50": figure}
