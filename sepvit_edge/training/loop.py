"""The training loop: one for float and quantisation-aware models, on one device or many.

Any step can be repeated exactly. Batches, image size and learning rate are functions of the step's
number, and each step seeds the generators itself, so a run that was killed goes on from its last
saved state with the curve that it would have had.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.sample import Dataset as Images
from ..errors import SepViTError
from ..model.reference import SepViT, set_image_size
from .data import TrainingImages, evaluation_batches, rule_of, seed_everything, training_loader
from .recipe import Plan, TrainingRecipe

STATE, HISTORY, CURVES = "state.pt", "history.json", "curves.png"
_SAVE_SECONDS = 120.0
_SCALES_RATE = 5.0


class Trainee(Protocol):
    """What the loop trains: takes normalised images (B, 3, size, size), gives logits."""

    def set_image_size(self, image_size: int) -> None:
        """Prepare for images of another side."""
        ...


class FloatTrainee(nn.Module):
    """The reference model under training."""

    def __init__(self, model: SepViT) -> None:
        super().__init__()
        self.model = model

    def set_image_size(self, image_size: int) -> None:
        """Prepare for images of another side; no weight depends on it."""
        if image_size != self.model.config.image_size:
            set_image_size(self.model, image_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, classes)."""
        logits: Tensor = self.model(x)
        return logits


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history.

    Attributes
    ----------
    epoch, step : int
        Counted from 1, at the end of the epoch.
    image_size : int
        Side of its last images.
    learning_rate, loss : float
        At its end; mean over its steps.
    validation_top1 : float or None
        Of the weights that would be saved.
    """

    epoch: int
    step: int
    image_size: int
    learning_rate: float
    loss: float
    validation_top1: float | None


def run_training(
    trainee: nn.Module,
    recipe: TrainingRecipe,
    run: Path,
    labels: tuple[str, ...],
    validation: Images | None,
    *,
    teacher: SepViT | None = None,
    cache: Path | None = None,
    workers: int = 0,
    resume: bool = False,
    report: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    epoch_done: Callable[[Epoch], None] = lambda epoch: None,
) -> nn.Module:
    """Train, and return what is to be saved: the moving average where the recipe has one.

    Parameters
    ----------
    trainee : torch.nn.Module
        A `Trainee`.
    recipe : TrainingRecipe
        All that the result depends on.
    run : Path
        Folder for state, history, TensorBoard's log and curves.
    labels : tuple of str
        Class names.
    validation : Dataset, optional
        For the curve.
    teacher : SepViT, optional
        For distillation.
    cache : Path, optional
        Folder for images that are drawn once; ``run/cache`` unless given.
    workers : int
        Processes that load images.
    resume : bool
        Go on from the run's saved state.
    report : callable
        Told step, steps and loss after each step, in the main process.
    epoch_done : callable
        Told each line of the history, in the main process.

    Raises
    ------
    SepViTError
        If the data is smaller than a batch, or the saved state is of another recipe.
    """
    from accelerate import Accelerator
    from timm.data import Mixup
    from timm.data.random_erasing import RandomErasing
    from timm.scheduler import CosineLRScheduler
    from timm.utils import ModelEmaV3

    # Second moments of near-dead weights decay into denormals, which a CPU computes in microcode.
    torch.set_flush_denormal(True)
    # Autocast is our own: accelerate keeps the precision of a process's first run for all others.
    accelerator = Accelerator(mixed_precision="no")
    images = TrainingImages(recipe, labels, cache or run / "cache")
    plan = Plan(recipe, len(images), accelerator.num_processes)
    if plan.steps_an_epoch == 0:
        raise SepViTError(
            f"{recipe.data} has {len(images)} images, fewer than the batch of "
            f"{recipe.batch * accelerator.num_processes}; give a smaller --batch"
        )
    updates = -(-plan.steps // recipe.accumulate)
    warmup = min(updates // 2, round(recipe.warmup_epochs * plan.steps_an_epoch))
    warmup //= recipe.accumulate

    trainable = [p for p in trainee.parameters() if p.requires_grad]
    scales = [p for p in trainable if p.ndim == 0]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trainable if p.ndim == 1], "weight_decay": 0.0},
            # Scales of a quantisation-aware model's activations, as logarithms.
            {"params": scales, "weight_decay": 0.0, "lr": _SCALES_RATE * recipe.learning_rate},
        ],
        lr=recipe.learning_rate,
    )
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=max(1, updates - warmup),
        lr_min=recipe.minimum_learning_rate,
        warmup_t=warmup,
        warmup_lr_init=recipe.minimum_learning_rate,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    device = accelerator.device
    trainee.to(device)
    ema = ModelEmaV3(trainee, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    first, history, partial, seconds = 0, list[Epoch](), 0.0, 0.0
    if resume:
        state = _restore(run, recipe, trainee, ema, optimizer)
        first, partial, seconds = state["step"], state["total"], state["seconds"]
        history = [Epoch(**line) for line in state["history"]]
    model, optimizer = accelerator.prepare(trainee, optimizer)
    mix = None
    how = recipe.augmentation
    if how.mixup or how.cutmix:
        mix = Mixup(
            how.mixup, how.cutmix, label_smoothing=recipe.label_smoothing, num_classes=len(labels)
        )
    erase = RandomErasing(how.erasing, mode="pixel", device=device) if how.erasing else None
    mean, std = (
        torch.tensor(v, device=device).reshape(1, 3, 1, 1) * 255 for v in (recipe.mean, recipe.std)
    )
    if teacher is not None:
        teacher = teacher.to(device).eval()

    def precision() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        logits = model(x).float()
        loss = loss_of_answers(logits, x, y)
        if recipe.rounding_noise:
            with cast(Any, trainee).unrounded():
                clean = model(x).float()
            loss = loss + recipe.rounding_noise * noise_share(logits, clean)
        return loss

    def loss_of_answers(logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(
            logits, y, label_smoothing=0.0 if mix is not None else recipe.label_smoothing
        )
        weight, t = recipe.distillation.weight, recipe.distillation.temperature
        if teacher is None or not weight:
            return loss
        if teacher.config.image_size != x.shape[-1]:
            set_image_size(teacher, x.shape[-1])
        with torch.no_grad(), precision():
            wanted = teacher(x).float()
        distance = F.kl_div(
            F.log_softmax(logits / t, 1),
            F.log_softmax(wanted / t, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - weight) * loss + weight * t * t * distance

    loader = training_loader(images, plan, first, accelerator.process_index, workers)
    writer = _writer(run, first) if accelerator.is_main_process else None
    start = saved = time.monotonic()
    total = torch.full((), partial, device=device)
    model.train()
    for step, (pixels, classes) in enumerate(loader, first):
        cast(Trainee, trainee).set_image_size(pixels.shape[-1])
        seed_everything(_step_seed(recipe.seed, step, accelerator.process_index))
        x, y = pixels.to(device).float(), classes.to(device)
        x = (x - mean) / std
        if mix is not None:
            x, y = mix(x, y)
        if erase is not None:
            x = erase(x)
        last = (step + 1) % recipe.accumulate == 0 or step + 1 == plan.steps
        with precision():
            loss = loss_of(x, y)
        if last:
            accelerator.backward(loss / recipe.accumulate)
        else:
            with accelerator.no_sync(model):
                accelerator.backward(loss / recipe.accumulate)
        if last:
            update = step // recipe.accumulate
            schedule.step_update(update)
            if recipe.clip:
                weights = [p for p in model.parameters() if p.ndim]
                accelerator.clip_grad_norm_(weights, recipe.clip)
            optimizer.step()
            optimizer.zero_grad()
            if ema is not None:
                ema.update(accelerator.unwrap_model(model), step=update)
        value = loss.detach()
        if not torch.isfinite(value):
            raise SepViTError(
                f"the loss is {value.item()} at step {step + 1}; lower the learning rate "
                f"({recipe.learning_rate:g}) and start again"
            )
        total += value
        if accelerator.is_main_process:
            report(step + 1, plan.steps, value.item())
        if writer is not None and (step % 20 == 0 or step + 1 == plan.steps):
            writer.add_scalar("train/loss", value.item(), step)
            writer.add_scalar("train/learning_rate", optimizer.param_groups[0]["lr"], step)
        place = (step + 1) % plan.steps_an_epoch
        ends = place == 0 or step + 1 == plan.steps
        if ends:
            if accelerator.num_processes > 1:
                total = accelerator.reduce(total, "mean")
            kept = ema.module if ema is not None else accelerator.unwrap_model(model)
            cast(Trainee, kept).set_image_size(pixels.shape[-1])
            top1 = None
            if validation is not None:
                top1 = evaluate_top1(kept, validation, recipe, pixels.shape[-1], device)
            line = Epoch(
                -(-(step + 1) // plan.steps_an_epoch),
                step + 1,
                pixels.shape[-1],
                float(f"{optimizer.param_groups[0]['lr']:.4g}"),
                float(f"{total.item() / (place or plan.steps_an_epoch):.5g}"),
                top1,
            )
            history.append(line)
            total.zero_()
            if writer is not None:
                if top1 is not None:
                    writer.add_scalar("validation/top1", top1, step)
                writer.flush()
            if accelerator.is_main_process:
                epoch_done(line)
            model.train()
        now = time.monotonic()
        due = now - saved > _SAVE_SECONDS
        if accelerator.is_main_process and last and (due or ends):
            plain = accelerator.unwrap_model(model)
            _save(
                run, recipe, step + 1, plain, ema, optimizer, history, total, seconds + now - start
            )
            saved = now
    if writer is not None:
        writer.close()
        draw_curves(history, run / CURVES)
    result = ema.module if ema is not None else accelerator.unwrap_model(model)
    return cast(nn.Module, result).to("cpu").eval()


def noise_share(logits: Tensor, clean: Tensor) -> Tensor:
    """Power of the difference of two sets of logits, as a share of the second's.

    Each row counts from its mean: what is added to all logits of an image changes no answer, and
    must not make the noise look smaller.
    """
    clean = clean - clean.mean(1, keepdim=True)
    logits = logits - logits.mean(1, keepdim=True)
    return (logits - clean).square().sum() / clean.square().sum()


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


@torch.no_grad()
def evaluate_top1(
    model: nn.Module,
    data: Images,
    recipe: TrainingRecipe,
    image_size: int,
    device: torch.device | str = "cpu",
) -> float:
    """Top-1 accuracy of a trainee in evaluation mode, 0..1."""
    training = model.training
    model.eval()
    rule = rule_of(recipe)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) * 255 for v in (rule.mean, rule.std))
    right = 0
    for pixels, labels in evaluation_batches(data, rule, image_size):
        x = ((pixels.float() - mean) / std).to(device)
        right += int((model(x).argmax(1).cpu() == labels).sum())
    model.train(training)
    return right / len(data)


def _save(
    run: Path,
    recipe: TrainingRecipe,
    step: int,
    model: nn.Module,
    ema: Any,
    optimizer: Any,
    history: list[Epoch],
    total: Tensor,
    seconds: float,
) -> None:
    """Replace the run's state at once: a kill leaves the old one or the new one."""
    state = {
        "recipe": recipe.model_dump_json(),
        "step": step,
        "model": model.state_dict(),
        "ema": ema.module.state_dict() if ema is not None else None,
        "optimizer": optimizer.state_dict(),
        "history": [vars(line) for line in history],
        "total": float(total),
        "seconds": seconds,
    }
    temporary = run / f".{STATE}"
    torch.save(state, temporary)
    os.replace(temporary, run / STATE)
    temporary = run / f".{HISTORY}"
    temporary.write_text(json.dumps(state["history"], indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, run / HISTORY)


def _restore(
    run: Path, recipe: TrainingRecipe, model: nn.Module, ema: Any, optimizer: Any
) -> dict[str, Any]:
    """Load a run's state into model and optimizer; step, history and sums are returned."""
    path = run / STATE
    if not path.exists():
        raise SepViTError(f"there is no saved state in {run}; leave --resume out")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    then = TrainingRecipe.model_validate_json(state["recipe"])
    for key in TrainingRecipe.model_fields:
        if getattr(then, key) != getattr(recipe, key):
            raise SepViTError(
                f"the run in {run} was started with {key} = {getattr(then, key)}, "
                f"not {getattr(recipe, key)}; a run goes on as it began"
            )
    model.load_state_dict(state["model"])
    if ema is not None:
        ema.module.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    return state


def _writer(run: Path, first: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run), purge_step=first)


def draw_curves(history: list[Epoch], path: Path) -> None:
    """Draw loss and validation top-1 over epochs as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    epochs = [line.epoch for line in history]
    left.plot(epochs, [line.loss for line in history])
    left.set(xlabel="epoch", ylabel="training loss")
    known = [(line.epoch, line.validation_top1) for line in history if line.validation_top1]
    if known:
        right.plot([e for e, _ in known], [100 * t for _, t in known])
    right.set(xlabel="epoch", ylabel="validation top-1, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
