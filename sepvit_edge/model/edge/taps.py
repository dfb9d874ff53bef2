"""What parity by block looks at: the outputs of the parts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Taps:
    """The outputs of the parts, by name."""

    def __init__(self) -> None:
        self.outputs: dict[str, Tensor] = {}

    def keep(self, name: str, x: Tensor, *then: Callable[[Tensor], Tensor]) -> None:
        """Keep a part's output as (rows, C), after applying `then`; maps become rows."""
        for function in then:
            x = function(x)
        self.outputs[name] = x if x.ndim == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class NoTaps(Taps):
    """Keeps nothing, and leaves nothing in the traced graph."""

    def keep(self, name: str, x: Tensor, *then: Callable[[Tensor], Tensor]) -> None:
        """Do nothing."""
