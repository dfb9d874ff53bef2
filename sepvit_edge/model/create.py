"""A new model of a task."""

from __future__ import annotations

from typing import Literal, TypeAlias, overload

from ..errors import SepViTError
from .dense import DenseConfig, DenseModel, DenseTask
from .dense.config import WindowRule, default_head, paper_classes
from .reference import SepViT
from .variants import ModelConfig, Preprocessing

ReferenceModel: TypeAlias = SepViT | DenseModel


@overload
def create_model(
    variant: str,
    num_classes: int | None = None,
    image_size: int = 224,
    *,
    task: Literal["classification"] = "classification",
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] = (),
    drop_path: float = 0.0,
) -> SepViT: ...
@overload
def create_model(
    variant: str,
    num_classes: int | None = None,
    *,
    task: DenseTask,
    head: str | None = None,
    input_size: tuple[int, int] | None = None,
    window: WindowRule = "paper",
    channels: int = 0,
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] = (),
    drop_path: float = 0.0,
) -> DenseModel: ...
def create_model(
    variant: str,
    num_classes: int | None = None,
    image_size: int | None = None,
    *,
    task: str = "classification",
    head: str | None = None,
    input_size: tuple[int, int] | None = None,
    window: WindowRule = "paper",
    channels: int = 0,
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] = (),
    drop_path: float = 0.0,
) -> SepViT | DenseModel:
    """Create a reference model with new random weights.

    Parameters
    ----------
    variant : str
        ``"lite"``, ``"t"``, ``"s"`` or ``"b"``.
    num_classes : int, optional
        Number of classes. Default: the paper's: 1000; 150 in segmentation, 80 in detection.
    image_size : int, optional
        Of a classifier: side of the input in pixels, a multiple of 32. Default: 224.
    task : str
        ``"classification"``, ``"segmentation"`` or ``"detection"``.
    head : str, optional
        ``"semantic-fpn"`` or ``"upernet"`` for segmentation, ``"retinanet"`` or
        ``"mask-rcnn"`` for detection. Default: the first of the task.
    input_size : tuple of int, optional
        Of a dense model: height and width in pixels, multiples of 32. Default: 512 x 512.
    window : str
        Of a dense model: ``"paper"`` pads maps to windows of 7, ``"fit"`` takes a window that
        divides them.
    channels : int
        Of a dense model: width of its neck or head; 0 stands for the paper's.
    preprocessing : Preprocessing, optional
        Default: ImageNet's; a dense model sees the whole image.
    labels : tuple of str
        Class names. Default: ``"0" ... "n-1"``.
    drop_path : float
        Stochastic depth rate for training.

    Returns
    -------
    SepViT or DenseModel
        In training mode.

    Raises
    ------
    SepViTError
        If the variant, task or head is unknown, a size does not fit, the number of labels is not
        `num_classes`, or an argument is of another task.

    Examples
    --------
    >>> import sepvit_edge, torch
    >>> model = sepvit_edge.create_model("lite", num_classes=10, image_size=64)
    >>> model(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 10])
    >>> model = sepvit_edge.create_model(
    ...     "lite", task="segmentation", num_classes=11, input_size=(64, 96)
    ... )
    >>> model(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 11, 16, 24])
    """
    if task == "classification":
        if head or input_size or channels or window != "paper":
            raise SepViTError(
                "head, input_size, window and channels are for segmentation and detection; a "
                "classifier has an image_size"
            )
        rule = preprocessing or Preprocessing()
        classes = 1000 if num_classes is None else num_classes
        size = 224 if image_size is None else image_size
        config = ModelConfig(variant, classes, size, rule, tuple(labels))
        return SepViT(config, drop_path)
    if image_size is not None:
        raise SepViTError(f"{task} takes input_size=(height, width), not image_size")
    head = head or default_head(task)
    dense = DenseConfig(
        task,  # type: ignore[arg-type]
        head,
        variant,
        paper_classes(head) if num_classes is None else num_classes,
        input_size or (512, 512),
        window,
        channels,
        preprocessing or Preprocessing(crop=1.0),
        tuple(labels),
    )
    return DenseModel(dense, drop_path)
