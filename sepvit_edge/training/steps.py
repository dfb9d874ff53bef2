"""Where each step of a training run stands; all of it is a function of the step's number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import SepViTError
from .recipe import TrainingRecipe


@dataclass(frozen=True)
class StepPlan:
    """Steps, epochs and image sizes of a run.

    Parameters
    ----------
    recipe : TrainingRecipe
        Epochs, batch and resolution schedule.
    images : int
        Number of training images.
    world : int
        Number of devices.
    """

    recipe: TrainingRecipe
    images: int
    world: int

    def check(self) -> None:
        """Refuse data that do not fill a batch.

        Raises
        ------
        SepViTError
            If there are fewer images than a batch of all devices.
        """
        if self.steps_an_epoch == 0:
            raise SepViTError(
                f"{self.recipe.data} has {self.images} images, fewer than the batch of "
                f"{self.recipe.batch * self.world}; give a smaller --batch"
            )

    @property
    def steps_an_epoch(self) -> int:
        """Full batches in an epoch; the images left over get another order in the next one."""
        return self.images // (self.recipe.batch * self.world)

    @property
    def steps(self) -> int:
        """Steps of the whole run: full epochs, unless the recipe has a number of steps."""
        if self.recipe.steps:
            return self.recipe.steps
        least = -(-self.recipe.least_steps // self.steps_an_epoch)
        return self.steps_an_epoch * max(self.recipe.epochs, least)

    @property
    def updates(self) -> int:
        """Changes of the weights in the whole run."""
        return -(-self.steps // self.recipe.accumulate)

    @property
    def warmup_updates(self) -> int:
        """Changes of the weights while the learning rate rises."""
        recipe = self.recipe
        steps = min(self.updates // 2, round(recipe.warmup_epochs * self.steps_an_epoch))
        return steps // recipe.accumulate

    @property
    def head_updates(self) -> int:
        """Changes of the classifier alone, before all weights change."""
        return round(self.recipe.head_warmup * self.updates)

    def updates_after(self, step: int) -> bool:
        """Return whether the weights change after a step, counted from 0."""
        return (step + 1) % self.recipe.accumulate == 0 or step + 1 == self.steps

    def steps_in_epoch(self, step: int) -> int:
        """Return the number of steps of an epoch up to a step, that one included."""
        return step % self.steps_an_epoch + 1

    @property
    def epochs(self) -> int:
        """Epochs of the whole run, the last one perhaps not full."""
        return -(-self.steps // self.steps_an_epoch)

    def epoch(self, step: int) -> int:
        """Return the number of a step's epoch, counted from 1."""
        return step // self.steps_an_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        """Return whether an epoch, or the run, ends after a step."""
        return (step + 1) % self.steps_an_epoch == 0 or step + 1 == self.steps

    def image_size(self, step: int) -> int:
        """Return the side of a step's images."""
        schedule = self.recipe.resolution_schedule
        total, reached = sum(share for _, share in schedule), 0.0
        for size, share in schedule:
            reached += share
            if step < math.ceil(self.steps * reached / total):
                return size
        return schedule[-1][0]
