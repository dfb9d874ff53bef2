"""Patches of what ExecuTorch does for every backend, for as long as a model is lowered."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import copy
from types import SimpleNamespace
from typing import Any

from .vendor import VendorPatch

_SAME_BYTES = (
    "tests/runtimes/test_executorch.py::"
    "test_another_process_and_the_documented_route_give_the_same_bytes"
)
_HISTORY = VendorPatch(
    "torch.fx.traceback:copy",
    "torch 2.13.0",
    "every pass copies the whole history of every node: a fifth of the time",
    _SAME_BYTES,
)
EDGE_PASSES = VendorPatch(
    "executorch.exir.program._program:_get_aten_to_edge_passes",
    "executorch 1.4.1",
    "passes trace the whole graph anew for operations that no edge model has: a quarter of the "
    "time",
    _SAME_BYTES,
)
PATCHES = (_HISTORY, EDGE_PASSES)


def shared_history() -> AbstractContextManager[Any]:
    """Let nodes share what they came from, which nothing changes, instead of a copy each."""
    return _HISTORY.replaced_by(SimpleNamespace(copy=copy, deepcopy=list))


def few_edge_passes() -> AbstractContextManager[Any]:
    """Leave out `to_edge`'s passes for operations that no edge model has.

    These are transposes of matrices, views that are left, sizes that are not known, and operands of
    two types.
    """
    from executorch.exir.passes.remove_noop_pass import RemoveNoopPass, RemoveToCopyPass
    from executorch.exir.passes.scalar_to_tensor_pass import ScalarToTensorPass

    passes = EDGE_PASSES.original()

    def few(config: object) -> tuple[Any, Any]:
        needed = [ScalarToTensorPass(), RemoveNoopPass(), RemoveToCopyPass()]
        return needed, passes(config)[1]

    return EDGE_PASSES.replaced_by(few)
