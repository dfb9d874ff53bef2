"""The configuration of a dense model: task, head, input size and windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ...errors import SepViTError, unknown_name
from ..labels import check_labels
from ..variants import Preprocessing, check_num_classes, find_variant

DenseTask = Literal["segmentation", "detection"]
DenseAnswer = Literal["segmentation", "detection", "instance-segmentation"]
WindowRule = Literal["paper", "fit"]
WINDOW_RULES: tuple[WindowRule, ...] = ("paper", "fit")

STRIDE = 32  # of the last map
PAPER_WINDOW = 7
# Attention within smaller windows sees too little, and there are too many windows.
SMALLEST_WINDOW = 4
# Memory grows with the square of the area where windows keep their side: this is 2048 x 2048.
LARGEST_AREA = 2048 * 2048
# Of Mask R-CNN: cells on a side of a region's features, for its box and for its mask, and regions
# of an image.
BOX_CELLS, MASK_CELLS = 7, 14
PROPOSALS, DETECTIONS = 1000, 100
# Its second and third network, as graphs of a package are named.
BOX_HEAD, MASK_HEAD = "box-head", "mask-head"


@dataclass(frozen=True)
class Head:
    """A head of the paper.

    Attributes
    ----------
    task : str
        What it is for.
    name : str
        Its published name.
    channels : int
        Width in the paper: of the FPN, or of UperNet's own maps.
    num_classes : int
        Classes of the paper's data set.
    instances : bool
        Whether boxes have masks.
    """

    task: DenseTask
    name: str
    channels: int
    num_classes: int
    instances: bool = False

    @property
    def answer(self) -> DenseAnswer:
        """What it finds, as manifests call their task."""
        return "instance-segmentation" if self.instances else self.task


HEADS = {
    "semantic-fpn": Head("segmentation", "Semantic FPN", 256, 150),
    "upernet": Head("segmentation", "UperNet", 512, 150),
    "retinanet": Head("detection", "RetinaNet", 256, 80),
    "mask-rcnn": Head("detection", "Mask R-CNN", 256, 80, instances=True),
}
DENSE_TASKS: tuple[DenseTask, ...] = ("segmentation", "detection")


def heads_of(task: str) -> list[str]:
    """Return the names of a task's heads, the default first.

    Examples
    --------
    >>> heads_of("segmentation")
    ['semantic-fpn', 'upernet']
    """
    return [name for name, head in HEADS.items() if head.task == task]


def default_head(task: str) -> str:
    """Return the head that a task has where none is named.

    Raises
    ------
    SepViTError
        If the task is unknown.
    """
    if task not in DENSE_TASKS:
        raise unknown_name("task", task, ("classification", *DENSE_TASKS))
    return heads_of(task)[0]


def paper_classes(head: str) -> int:
    """Return the number of classes of the data set that the paper trains a head on.

    Raises
    ------
    SepViTError
        If the head is unknown.
    """
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)
    return HEADS[head].num_classes


@dataclass(frozen=True)
class DenseConfig:
    """The configuration stored with a dense model's weights.

    Attributes
    ----------
    task : str
        ``"segmentation"`` or ``"detection"``.
    head : str
        A key of `HEADS`.
    variant : str
        Name of the backbone's variant; see `find_variant`.
    num_classes : int
        Classes of the head; in segmentation, a background counts as one.
    input_size : tuple of int
        Height and width of the input in pixels, multiples of 32.
    window : str
        ``"paper"``: windows of 7, and maps are padded to a multiple; ``"fit"``: the window nearest
        7 that divides all maps, nothing is padded. No weight depends on it.
    channels : int
        Width of the FPN, or of UperNet's maps; 0 stands for the paper's.
    preprocessing : Preprocessing
        Its mean and std; nothing is cropped.
    labels : tuple of str
        Class names. Default: ``"0" ... "n-1"``.

    Examples
    --------
    >>> DenseConfig("segmentation", "semantic-fpn", "lite", 11, (256, 512), "fit").window_side
    8
    """

    task: DenseTask
    head: str
    variant: str
    num_classes: int
    input_size: tuple[int, int] = (512, 512)
    window: WindowRule = "paper"
    channels: int = 0
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(crop=1.0))
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        head = check_head(self.task, self.head)
        object.__setattr__(self, "variant", find_variant(self.variant).key)
        object.__setattr__(self, "channels", self.channels or head.channels)
        object.__setattr__(self, "input_size", tuple(self.input_size))
        check_num_classes(self.num_classes)
        if not 2 <= self.channels <= 4096 or self.channels % 2:
            raise SepViTError(f"a head has 2 to 4096 channels, an even number, not {self.channels}")
        check_input_size(self.input_size)
        if self.window not in WINDOW_RULES:
            raise unknown_name("window rule", self.window, WINDOW_RULES)
        _ = self.window_side  # refuses a size that windows do not fit
        if self.preprocessing.crop != 1:
            raise SepViTError(
                f"a dense model sees the whole image: its crop share is 1, not "
                f"{self.preprocessing.crop}"
            )
        if not self.labels:
            object.__setattr__(self, "labels", tuple(str(i) for i in range(self.num_classes)))
        if len(self.labels) != self.num_classes:
            raise SepViTError(
                f"{len(self.labels)} labels do not fit {self.num_classes} classes; "
                "give one label a class, in the order of the head's outputs"
            )
        check_labels(self.labels)

    @property
    def answer(self) -> DenseAnswer:
        """What the model finds, as manifests call their task."""
        return HEADS[self.head].answer

    @property
    def window_side(self) -> int:
        """Side of a window (ws) in pixels of a map; grouped blocks have twice as much."""
        return PAPER_WINDOW if self.window == "paper" else fit_window(*self.input_size)


def check_head(task: str, head: str) -> Head:
    """Return a head of a task.

    Raises
    ------
    SepViTError
        If task or head is unknown, or the head is another task's.
    """
    if task not in DENSE_TASKS:
        raise unknown_name("task", task, ("classification", *DENSE_TASKS))
    if head not in HEADS:
        raise unknown_name(f"head for {task}", head, heads_of(task))
    if HEADS[head].task != task:
        raise SepViTError(
            f"the head {head} is for {HEADS[head].task}; heads for {task}: "
            f"{', '.join(heads_of(task))}"
        )
    return HEADS[head]


def check_input_size(size: tuple[int, int]) -> None:
    """Refuse a height and width that the backbone does not take.

    Raises
    ------
    SepViTError
        If they are not positive multiples of 32, where the nearest that are stand in the sentence,
        or together over the limit.
    """
    height, width = size
    if min(size) < STRIDE or height % STRIDE or width % STRIDE:
        near = tuple(max(STRIDE, (side + STRIDE // 2) // STRIDE * STRIDE) for side in size)
        raise SepViTError(
            f"input size {height}x{width} (height x width) is not of multiples of {STRIDE}; the "
            f"nearest that works is {near[0]}x{near[1]}"
        )
    if height * width > LARGEST_AREA:
        raise SepViTError(
            f"input size {height}x{width} has over {LARGEST_AREA:,} pixels, the limit"
        )


def fit_window(height: int, width: int) -> int:
    """Return the window side that divides all maps of an input and is nearest the paper's.

    Parameters
    ----------
    height, width : int
        Of the input in pixels, multiples of 32.

    Examples
    --------
    >>> fit_window(512, 512), fit_window(448, 672)
    (8, 7)

    Raises
    ------
    SepViTError
        If it is less than 4; the nearest input size that fits is named.
    """
    side = _dividing_window(height, width)
    if side < SMALLEST_WINDOW:
        near = min(
            _around(height, width), key=lambda size: abs(size[0] - height) + abs(size[1] - width)
        )
        raise SepViTError(
            f"no window of {SMALLEST_WINDOW} or more pixels divides the maps of {height}x{width}; "
            f"the nearest input size that fits is {near[0]}x{near[1]}, or take the window rule "
            "'paper', which pads"
        )
    return side


def _dividing_window(height: int, width: int) -> int:
    common = math.gcd(height // STRIDE, width // STRIDE)
    sides = [side for side in range(1, common + 1) if common % side == 0]
    return min(sides, key=lambda side: (abs(side - PAPER_WINDOW), -side))


def _around(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the input sizes near one that windows of enough pixels divide."""
    reach = [step * STRIDE for step in range(-SMALLEST_WINDOW, SMALLEST_WINDOW + 1)]
    for down in reach:
        for right in reach:
            size = height + down, width + right
            if min(size) >= STRIDE and _dividing_window(*size) >= SMALLEST_WINDOW:
                yield size
