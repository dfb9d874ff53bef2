"""Read the nodes of a program that ExecuTorch has lowered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

# Calls in a lowered program that run no kernel.
_NO_WORK = frozenset({"alloc", "executorch_call_delegate", "getitem", "view"})


def operations(program: ExportedProgram) -> list[Node]:
    """Return the calls of a lowered program that run a kernel."""
    nodes = (node for node in program.graph.nodes if node.op == "call_function")
    return [node for node in nodes if kind_of(node) not in _NO_WORK]


def kind_of(node: Node) -> str:
    """Return a short name: ``aten.linear.default`` and ``linear.out`` are both ``linear``."""
    names = str(getattr(node.target, "__name__", node.target)).split(".")
    return names[-2] if len(names) > 1 else names[0]
