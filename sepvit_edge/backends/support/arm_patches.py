"""Patches of ExecuTorch's Arm backend, for as long as a model is lowered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from .edge_patches import EDGE_PASSES, shared_history
from .vendor import VendorPatch

_VERSION = "executorch 1.4.1"
_TESTS = "tests/runtimes/test_ethos_u.py"
_SAME_GRAPH = f"{_TESTS}::test_leaving_out_passes_changes_nothing"
_ONE_DELEGATE = f"{_TESTS}::test_one_delegate_that_the_reference_model_runs"
_IDLE_PASSES = tuple(
    VendorPatch(
        f"executorch.backends.arm._passes:{name}.should_run_pass",
        _VERSION,
        "it interprets the whole graph for operations that no edge model has",
        _SAME_GRAPH,
    )
    for name in (
        "DecomposeAdaptiveMaxPool2dPass",
        "DecomposeGeluPass",
        "DecomposeGroupedConvPass",
        "DecomposeStridedSliceCopyPass",
        "InsertDataLayoutCastsPass",
        "InsertDynamicPaddingPass",
        "PromoteBoolOperandsPass",
        "RemoveGetItemPass",
        "RewriteHighRankSingletonPermutePass",
        "SymbolicToTosaShapesPass",
    )
)
_DECOMPOSITION = VendorPatch(
    "torch.export:ExportedProgram.run_decompositions",
    "torch 2.13.0",
    "the program is decomposed again, though tracing has done it",
    _SAME_GRAPH,
)
_FUSED_SUMS = VendorPatch(
    "executorch.backends.arm._passes.fuse_consecutive_rescales_pass:_try_fuse_identity_pair",
    _VERSION,
    "a sum is joined to the sum that reads it where both have one scale by chance, and is not "
    "rounded and clipped between them: 29 dB of SepViT-T were left",
    f"{_TESTS}::test_a_sum_is_rounded_before_a_sum_of_its_scale",
)
VELA = VendorPatch(
    "executorch.backends.arm.arm_vela:vela",
    _VERSION,
    "Vela prints, and keeps state from one call to the next: it has to run in a process",
    _ONE_DELEGATE,
)
VELA_COMPILE = VendorPatch(
    "executorch.backends.arm.ethosu.backend:vela_compile",
    _VERSION,
    "the TOSA graph and Vela's summary are thrown away",
    _ONE_DELEGATE,
)
PATCHES = (*_IDLE_PASSES, _DECOMPOSITION, _FUSED_SUMS, VELA, VELA_COMPILE)


@contextmanager
def few_passes() -> Iterator[None]:
    """Leave out passes for operations that no edge model has.

    The graph that reaches Vela is the same (a test compares them), in a third of the time.
    """
    with ExitStack() as stack:
        stack.enter_context(_DECOMPOSITION.replaced_by(lambda self, *_, **__: self))
        stack.enter_context(shared_history())
        # The Arm backend has its own.
        stack.enter_context(EDGE_PASSES.replaced_by(lambda *_: ([], [])))
        for idle in _IDLE_PASSES:
            stack.enter_context(idle.replaced_by(lambda *_: False))
        yield


def sums_rounded() -> AbstractContextManager[Any]:
    """Round the result of every addition to int8."""
    return _FUSED_SUMS.replaced_by(lambda *_: False)
