"""Count which operation runs where, and the share of the network's MACs in each place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch.export import ExportedProgram

from ...model.graph import macs_by_operation, part_of
from ...package.manifest import Estimate, OutsideOp, PlacedOps, Placement


@dataclass
class _Group:
    """Operations of one place in one precision."""

    kinds: Counter[str] = field(default_factory=Counter)
    macs: int = 0


class Place:
    """A unit, delegate or kernel library that operations run in; made by `PlacementBuilder`."""

    def __init__(self, name: str, accelerated: bool, macs: Counter[str]) -> None:
        self.name, self.accelerated = name, accelerated
        self.groups: dict[str, _Group] = {}
        self._macs = macs

    def add(self, precision: str, kind: str, sources: Iterable[str] = ()) -> None:
        """Count one operation.

        Parameters
        ----------
        precision, kind : str
            The runtime's names.
        sources : iterable of str
            Operations of the traced program that it computes. The MACs of each are counted once,
            with the first operation that names it.
        """
        group = self.groups.setdefault(precision, _Group())
        group.kinds[kind] += 1
        for name in sources:
            group.macs += self._macs.pop(name, 0)
            # Runtimes name a layer after the ReLU that they put into it.
            module, relu, number = name.partition("__relu")
            if relu:
                group.macs += self._macs.pop(f"{module}__convolution{number}", 0)
                group.macs += self._macs.pop(f"{module}__linear{number}", 0)

    def add_rest_of_parts(self, precision: str, parts: Iterable[str | None]) -> None:
        """Count all MACs of some parts that no operation has named, where a fusion lost names."""
        wanted = set(parts) - {None}
        names = [name for name in self._macs if part_of(name) in wanted]
        self.groups[precision].macs += sum(self._macs.pop(name) for name in names)


class PlacementBuilder:
    """The counters of a `Placement`.

    Parameters
    ----------
    program : ExportedProgram
        The traced program that was lowered.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._macs = macs_by_operation(program)
        self._total = sum(self._macs.values())
        self._places: list[Place] = []
        self._outside: list[OutsideOp] = []

    def place(self, name: str, accelerated: bool) -> Place:
        """Declare a place; the placement lists places in this order, those without work left out.

        Parameters
        ----------
        name : str
            The place, as users know it.
        accelerated : bool
            Whether it is the target's own unit, not a fallback.
        """
        place = Place(name, accelerated, self._macs)
        self._places.append(place)
        return place

    def outside(self, name: str, kind: str, reason: str) -> None:
        """Report an operation that did not go where the target wants it, and the likely reason."""
        self._outside.append(OutsideOp(name=name, kind=kind, part=part_of(name), reason=reason))

    def placement(self, device: str, estimates: tuple[Estimate, ...] = ()) -> Placement:
        """Return the counts, and the share of MACs that no operation named."""
        return Placement(
            device=device,
            placed=[
                PlacedOps(
                    where=place.name,
                    precision=precision,
                    accelerated=place.accelerated,
                    ops=group.kinds.total(),
                    macs_share=self._share(group.macs),
                    kinds=dict(sorted(group.kinds.items())),
                )
                for place in self._places
                for precision, group in sorted(place.groups.items())
            ],
            outside=tuple(self._outside),
            macs_unattributed=self._share(sum(self._macs.values())),
            estimates=estimates,
        )

    def _share(self, macs: int) -> float:
        return round(macs / self._total, 4)
