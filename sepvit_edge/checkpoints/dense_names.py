"""Names and sizes of a dense model's options, checked before torch is loaded."""

from __future__ import annotations

from ..errors import unknown_name
from ..model.dense.config import (
    WINDOW_RULES,
    check_head,
    check_input_size,
    default_head,
    fit_window,
)
from .builtin import default_dense_checkpoint


def check_dense_names(
    weights: str, task: str, head: str, input_size: tuple[int, int] | None, window: str
) -> None:
    """Refuse options of a dense model that do not exist, before anything is loaded.

    Raises
    ------
    SepViTError
        Naming the first one; or if no weights are given, and none ship.
    """
    default_head(task)
    if head:
        check_head(task, head)
    if window and window not in WINDOW_RULES:
        raise unknown_name("window rule", window, WINDOW_RULES)
    if input_size is not None:
        check_input_size(input_size)
        if window == "fit":
            fit_window(*input_size)
    if not weights:
        default_dense_checkpoint(task, head)
