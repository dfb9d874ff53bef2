"""Names that a command was given, checked before anything is loaded: torch alone takes seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..backends.registry import RUNTIMES, check_dense_target
from ..checkpoints.builtin import default_checkpoint, locate
from ..checkpoints.dense_names import check_dense_names
from ..checkpoints.labels import read_labels
from ..config.recipe import PRECISIONS, find_recipe, load_recipe
from ..data.choose import check_data_name
from ..errors import SepViTError, unknown_name
from ..hub import SCHEME
from ..model.variants import check_image_size, find_variant


def check_task(
    task: str,
    head: str,
    input_size: str,
    window: str,
    weights: str,
    image_size: int | None,
    target: str,
) -> tuple[int, int] | None:
    """Check the options of a task, before anything is loaded.

    Returns
    -------
    tuple of int or None
        Height and width of the input, if they were given.

    Raises
    ------
    SepViTError
        If an option is unknown, or is another task's.
    """
    if task == "classification":
        for option, given in (("head", head), ("input-size", input_size), ("window", window)):
            if given:
                raise SepViTError(f"--{option} is for --task segmentation and --task detection")
        return None
    check_dense_target(target)
    size = parse_input_size(input_size) if input_size else None
    check_dense_names(weights, task, head, size, window)
    if image_size is not None:
        raise SepViTError(f"--image-size is for classification; {task} takes --input-size")
    return size


def parse_input_size(text: str) -> tuple[int, int]:
    """Read a height and a width in pixels, or the side of a square.

    Examples
    --------
    >>> parse_input_size("480x640"), parse_input_size("512")
    ((480, 640), (512, 512))

    Raises
    ------
    SepViTError
        If it is neither.
    """
    match = re.fullmatch("([0-9]{1,5})(?:[xX]([0-9]{1,5}))?", text)
    if match is None:
        raise SepViTError(
            "--input-size is HEIGHTxWIDTH in pixels, as 480x640 for landscapes, or one number for "
            f"a square, not {text!r}"
        )
    return int(match[1]), int(match[2] or match[1])


def check_names(
    *,
    weights: Iterable[str] = (),
    variant: str = "",
    image_sizes: Iterable[int | None] = (),
    labels: str = "",
    data: Iterable[str] = (),
    classes: str = "",
) -> None:
    """Refuse names of files, folders, variants and sizes that do not exist; empty ones are left.

    Parameters
    ----------
    weights : iterable of str
        Checkpoints: files, ``FILE::KEY``, built-in names, or ``"random"``.
    variant : str
        Key of a variant.
    image_sizes : iterable of int or None
        Sides in pixels.
    labels, classes : str
        Files of class names.
    data : iterable of str
        Built-in data sets and folders.

    Raises
    ------
    SepViTError
        Naming the first that does not exist.
    """
    if variant:
        find_variant(variant)
    for size in image_sizes:
        if size is not None:
            check_image_size(size)
    for name in weights:
        if name.startswith(SCHEME):
            continue  # a download is part of the work
        if name and name != "random":
            locate(name)
        elif not name and variant:
            default_checkpoint(variant)
    if labels:
        read_labels(labels)
    for name in data:
        if name:
            check_data_name(name)
    if classes and not Path(classes).is_file():
        raise SepViTError(f"there is no file {classes}; --classes names one")


def check_targets(targets: Sequence[str], precisions: Sequence[str] = (), recipe: str = "") -> None:
    """Refuse targets, precisions and a recipe that do not exist.

    Parameters
    ----------
    targets, precisions : sequence of str
        Names; of one target, the precision must be one that it has.
    recipe : str
        Name of a recipe, or a TOML file; empty if none was given.

    Raises
    ------
    SepViTError
        Naming the first that does not exist.
    """
    for target in targets:
        if target not in RUNTIMES:
            raise unknown_name("target", target, RUNTIMES)
    for precision in precisions:
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        if len(targets) == 1:
            find_recipe(targets[0], precision)
    if recipe:
        load_recipe(recipe)
