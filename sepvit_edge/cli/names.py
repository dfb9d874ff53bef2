"""Names that a command was given, checked before anything is loaded: torch alone takes seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..backends.registry import RUNTIMES
from ..checkpoints.builtin import default_checkpoint, locate
from ..checkpoints.labels import read_labels
from ..config.recipe import PRECISIONS, find_recipe, load_recipe
from ..data.choose import check_data_name
from ..errors import SepViTError, unknown_name
from ..hub import SCHEME
from ..model.variants import check_image_size, find_variant


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
