"""Training recipes: what to train, on what, and how; TOML files that users copy and edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ..config.toml import Strict, TomlFiles
from ..errors import SepViTError
from ..model.variants import IMAGENET_MEAN, IMAGENET_STD, check_image_size, find_variant


class Augmentation(Strict):
    """How training images are varied.

    Attributes
    ----------
    crop_scale : tuple of float
        Smallest and largest share of the image's area that a random crop keeps; ``(1, 1)`` takes
        the image as evaluation does.
    flip : float
        Probability of a mirror image.
    randaugment : str
        Policy in timm's notation, for example ``"rand-m9-mstd0.5-inc1"``; empty disables it.
    erasing : float
        Probability that a rectangle is replaced by noise.
    mixup, cutmix : float
        The alpha of each; 0 disables it. With both, each batch draws one of them.
    """

    crop_scale: tuple[float, float] = (1.0, 1.0)
    flip: float = Field(default=0.0, ge=0, le=1)
    randaugment: str = ""
    erasing: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)


class Distillation(Strict):
    """Learning from a teacher's logits and features.

    Attributes
    ----------
    teacher : str
        A checkpoint, the name of a built-in one, or ``"efficientnet-lite0"``
        (`sepvit_edge.training.teachers`); for quantisation-aware training, the checkpoint that it
        starts from by default.
    weight : float
        Weight of the teacher's loss; the labels' loss has the rest.
    temperature : float
        Divisor of both sides' logits.
    features : float
        Weight of the mean distance to the teacher's maps of all strides, added to the rest.
    unlabelled : bool
        Train on images without labels, in any folders: the classes are the teacher's.
    """

    teacher: str = ""
    weight: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    features: float = Field(default=0.0, ge=0)
    unlabelled: bool = False

    @model_validator(mode="after")
    def _taught(self) -> Distillation:
        if self.unlabelled and self.weight != 1:
            raise ValueError("images without labels need weight = 1")
        return self


class Dense(Strict):
    """What only segmentation and detection need.

    Attributes
    ----------
    head : str
        `sepvit_edge.model.dense.HEADS`; empty for the task's default.
    channels : int
        Width of neck and head; 0 for the paper's.
    input_size : tuple of int
        Height and width of the input in pixels, multiples of 32.
    window : str
        ``"paper"`` or ``"fit"``.
    zoom : tuple of float
        Smallest and largest size of an image, relative to the one that just fits into the input.
        Other than 1 it stands anywhere, and is cropped where it is too large.
    light : float
        Largest change of brightness, as a share of the range, and of contrast.
    box_weight : float
        Weight of the boxes' loss in detection.
    """

    head: str = ""
    channels: int = Field(default=0, ge=0)
    input_size: tuple[int, int] = (512, 512)
    window: Literal["paper", "fit"] = "paper"
    zoom: tuple[float, float] = (1.0, 1.0)
    light: float = Field(default=0.0, ge=0, lt=1)
    box_weight: float = Field(default=1.0, gt=0)

    @field_validator("zoom")
    @classmethod
    def _ordered(cls, zoom: tuple[float, float]) -> tuple[float, float]:
        if not 0 < zoom[0] <= zoom[1]:
            raise ValueError("give the smaller size first, both above 0")
        return zoom


class TrainingRecipe(Strict):
    """One training run; together with the data, everything that the result depends on.

    Attributes
    ----------
    description : str
        One line for readers.
    task : str
        ``"classification"``, ``"segmentation"`` or ``"detection"``.
    variant : str
        ``"lite"``, ``"t"``, ``"s"`` or ``"b"``.
    data : str
        A folder with one folder per class, or a built-in set.
    validation : str
        The same, for the validation curve and the choice of the best weights; a built-in set, and
        a folder with train/ and val/ in it, have their own split.
    test : str
        The same, for the accuracy on the card; the validation images by default.
    classes : str
        File that gives each folder of `validation` and `test` its label.
    wide_fonts : bool
        For `glyphs`: train on the fonts of the extra ``glyphs-wide`` too.
    distinct_epochs : int
        For `glyphs`: number of epochs with fresh images, after which they repeat; 0 never repeats.
    epochs : int
        Passes through the data.
    steps : int or None
        Number of steps instead of epochs, for runs shorter than one epoch.
    least_steps : int
        Lower limit of the number of steps: a small set is passed through more often.
    batch : int
        Images per step on each device, before accumulation.
    accumulate : int
        Number of steps whose gradients are summed before the weights change.
    resolution_schedule : tuple of (int, float)
        Image sizes in order, each with its share of the epochs; weights fit any size.
    crop : float
        Share of the image that evaluation's centre crop keeps.
    mean, std : tuple of float
        Mean and deviation of the input's normalisation, in 0..1.
    learning_rate, minimum_learning_rate : float
        Learning rate at the peak, and at the end of the cosine.
    warmup_epochs : float
        Epochs of the linear rise to the peak.
    head_warmup : float
        Share of the run at its start in which only the classifier changes, for a new one.
    freeze_until : str
        First part that is trained: ``"stage2"``, ``"stage3"``, ``"stage4"`` or ``"head"``; empty
        trains all.
    layer_decay : float
        Factor of the learning rate from each block to the one in front of it.
    patience : float
        Share of the run after which training stops if the validation figure (top-1, mean IoU,
        AP50) did not improve in it; 0 never stops early.
    validation_split : float
        Share of a folder's images to hold out for validation, chosen by their content.
    weight_decay : float
        AdamW's weight decay; biases and norms have none.
    clip : float
        Largest norm of the gradient; 0 disables the limit.
    label_smoothing, drop_path : float
        Regularisation; `drop_path` defaults to the variant's.
    ema : float
        Decay of the weights' moving average, which is then saved; 0 disables it.
    precision : str
        ``"bf16"`` (autocast) or ``"fp32"``.
    seed : int
        Seed of weights, order and augmentation.
    rounding_noise : float
        For quantisation-aware training: weight of the noise that int8 activations leave in the
        logits, as a share of their power. A runtime that rounds some activations the other way
        leaves as much noise, so this also keeps the runtimes close to each other.
    augmentation, distillation, dense : Augmentation, Distillation, Dense
        Tables of the recipe; the last one is for segmentation and detection.
    """

    description: str = ""
    task: Literal["classification", "segmentation", "detection"] = "classification"
    variant: str = "lite"
    data: str = ""
    validation: str = ""
    test: str = ""
    classes: str = ""
    wide_fonts: bool = False
    distinct_epochs: int = Field(default=0, ge=0)
    epochs: int = Field(default=30, ge=1)
    steps: int | None = Field(default=None, ge=1)
    least_steps: int = Field(default=0, ge=0)
    batch: int = Field(default=64, ge=2)
    accumulate: int = Field(default=1, ge=1)
    resolution_schedule: tuple[tuple[int, float], ...] = ((224, 1.0),)
    crop: float = Field(default=0.875, gt=0, le=1)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    learning_rate: float = Field(default=1e-3, gt=0)
    minimum_learning_rate: float = Field(default=1e-5, ge=0)
    warmup_epochs: float = Field(default=1.0, ge=0)
    head_warmup: float = Field(default=0.0, ge=0, lt=1)
    freeze_until: Literal["", "stage2", "stage3", "stage4", "head"] = ""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    patience: float = Field(default=0.0, ge=0, lt=1)
    validation_split: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = Field(default=0, ge=0, lt=2**32)
    rounding_noise: float = Field(default=0.0, ge=0)
    augmentation: Augmentation = Augmentation()
    distillation: Distillation = Distillation()
    dense: Dense = Dense()

    @field_validator("variant")
    @classmethod
    def _known(cls, variant: str) -> str:
        return find_variant(variant).key

    @model_validator(mode="after")
    def _dense_has_a_task(self) -> TrainingRecipe:
        # By value: a run's state stores every key, to go on by the same recipe.
        own, default = self.dense.model_dump(), Dense().model_dump()
        changed = [key for key in own if own[key] != default[key]]
        if self.task == "classification" and changed:
            key = min(changed)
            raise ValueError(f"dense.{key} is for segmentation and detection: state the task")
        return self

    @field_validator("resolution_schedule")
    @classmethod
    def _sizes(cls, schedule: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        if not schedule or min(share for _, share in schedule) <= 0:
            raise ValueError("each size needs a positive share of the epochs")
        for size, _ in schedule:
            check_image_size(size)
        return schedule


def parse_schedule(text: str) -> tuple[tuple[int, float], ...]:
    """Read ``"96,160,224"`` (equal shares) or ``"96:3,160:2,224:1"``.

    Raises
    ------
    SepViTError
        If it is neither.

    Examples
    --------
    >>> parse_schedule("96:3,224:1")
    ((96, 3.0), (224, 1.0))
    """
    schedule = []
    for part in text.split(","):
        size, _, share = part.partition(":")
        try:
            schedule.append((int(size), float(share or 1)))
        except ValueError:
            raise SepViTError(
                f"a resolution schedule is SIZE,SIZE ... or SIZE:SHARE,SIZE:SHARE ..., not {text!r}"
            ) from None
    return tuple(schedule)


TRAINING_RECIPES = TomlFiles("training recipe", TrainingRecipe, Path(__file__).parent)


def training_recipes() -> dict[str, Path]:
    """Return the recipes that ship with the package, by name."""
    return TRAINING_RECIPES.shipped()


def load_training_recipe(name_or_file: str, changes: Mapping[str, Any]) -> TrainingRecipe:
    """Read a recipe by name or from a file, and change what the command line states.

    Parameters
    ----------
    name_or_file : str
        Empty for the defaults.
    changes : mapping
        Values by key of the recipe; of `dense`, those of its keys that change.

    Raises
    ------
    SepViTError
        If the recipe does not exist, or a value is not allowed; the key is named.
    """
    if not name_or_file:
        return TRAINING_RECIPES.check(changes, "the training recipe")
    if "dense" in changes:
        others = {key: value for key, value in changes.items() if key != "dense"}
        own = TRAINING_RECIPES.load(name_or_file, others).dense
        table = own.model_dump(exclude_unset=True)
        changes = {**changes, "dense": {**table, **changes["dense"]}}
    return TRAINING_RECIPES.load(name_or_file, changes)


def check_options(
    recipe: TrainingRecipe,
    weights: str,
    qat: bool,
    keep_float: Sequence[str],
    scheme: str,
) -> None:
    """Refuse options that do not go together; for the arguments, see `train_checkpoint`.

    Raises
    ------
    SepViTError
        Naming the option to give or to leave out.
    """
    if not recipe.data:
        raise SepViTError("give the training data by --data: a folder per class, or a built-in set")
    if qat and not weights:
        raise SepViTError("quantisation-aware training starts from trained weights: give --weights")
    if scheme == "full" and keep_float:
        raise SepViTError("full int8 leaves no layer in float: leave --keep-float out")
    if scheme == "full" and not qat:
        raise SepViTError("--scheme is for quantisation-aware training: give --qat")
    if recipe.rounding_noise and not qat:
        raise SepViTError("rounding_noise is for quantisation-aware training: give --qat")
    float_only = ("freeze_until", "layer_decay", "head_warmup")
    stated = [
        key
        for key in float_only
        if getattr(recipe, key) != TrainingRecipe.model_fields[key].default
    ]
    if recipe.distillation.features:
        stated.append("distillation.features")
    if qat and stated:
        raise SepViTError(f"{stated[0]} is for float training; leave it out with --qat")


def check_dense_options(
    recipe: TrainingRecipe, weights: str, variant: str, classifiers_only: Sequence[str]
) -> None:
    """Refuse what segmentation and detection do not have.

    Parameters
    ----------
    recipe : TrainingRecipe
        A recipe for one of these tasks.
    weights, variant : str
        Checkpoint to start from, and the variant as the command line states it.
    classifiers_only : sequence of str
        Options that were given and are for classification.

    Raises
    ------
    SepViTError
        Naming the option or the key to leave out.
    """
    if recipe.dense.head == "mask-rcnn":
        raise SepViTError(
            "Mask R-CNN is not trained here; train it by MMDetection, whose files export reads"
        )
    if not recipe.data:
        raise SepViTError("give the training data by --data: a COCO file, a folder, or scenes")
    if "--qat" in classifiers_only:
        raise SepViTError(
            f"--qat is for classification; train {recipe.task} in float, and let export calibrate "
            "it: --precision int8"
        )
    fields = TrainingRecipe.model_fields
    keys = (
        "head_warmup",
        "rounding_noise",
        "distillation",
        "classes",
        "validation_split",
        "resolution_schedule",
        "crop",
        "label_smoothing",
    )
    stated = [key for key in keys if getattr(recipe, key) != fields[key].default]
    varied, none = recipe.augmentation.model_dump(), Augmentation().model_dump()
    stated += [f"augmentation.{k}" for k in varied if k != "flip" and varied[k] != none[k]]
    for name in (*classifiers_only, *stated):
        raise SepViTError(f"{name} is for classification; leave it out with {recipe.task}")
    if variant and weights:
        raise SepViTError("--weights decides the variant; leave --variant out")
