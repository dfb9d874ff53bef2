"""State dicts in the files of training tools: under a key, behind a prefix, raw and averaged."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import SepViTError

# Each says it once, and commands show it as a warning.
_log = logging.getLogger(__name__)

# Wrappers that torch puts into keys, at any depth. No module of ours has such a name.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Keys of the model by which a state dict is found in a file, whatever stands in front of them; the
# first is that of a dense model, whose backbone has the second one too.
_ANCHORS = ("backbone.norm_list.0.weight", "patch_embeds.0.proj.weight", "head.weight")
# What wrappers count in a tensor beside the model.
_COUNTERS = {"n_averaged"}
# What timm takes first, in this order, once there is no moving average.
_PREFERRED = ("state_dict", "model")


@dataclass(frozen=True)
class StateDict:
    """A model's state dict, and its place in a file.

    Attributes
    ----------
    values : dict
        Key -> tensor, by the model's own names; what is not a tensor is a fault.
    name : str
        Place: keys of containers and prefix, joined by dots; ``"."`` if there is neither.
    container, prefix : str
        Keys of the containers; what was removed from the front of each key.
    """

    values: dict[str, Any]
    name: str
    container: str
    prefix: str

    @property
    def found(self) -> str:
        """What was recognised, for a message in brackets behind the file's name; may be empty."""
        parts = [f"weights under {self.container!r}"] if self.container else []
        parts += [f"prefix {self.prefix!r} removed"] if self.prefix else []
        return f" ({', '.join(parts)})" if parts else ""


def find_state_dict(content: object, path: Path, wanted: str) -> StateDict:
    """Find the model's state dict in what a file holds.

    Where there are several, the moving average is taken, as timm does, and it is said.

    Parameters
    ----------
    content : object
        The loaded content.
    path : Path
        The file, for messages.
    wanted : str
        Name of the one to take, or its first parts; empty if the user named none.

    Raises
    ------
    SepViTError
        If there is none, or not the wanted one, or none of several is to be preferred.
    """
    if not isinstance(content, Mapping):
        raise SepViTError(
            f"{path.name} holds no state dict but a {type(content).__name__}; save one with "
            "torch.save(model.state_dict(), ...)"
        )
    found = [state for place, values in _with_tensors(content) for state in _split(place, values)]
    if not found:
        keys = ", ".join(str(key) for key in list(content)[:5]) or "none"
        raise SepViTError(
            f"{path.name} holds no state dict (its keys: {keys}); save one with "
            "torch.save(model.state_dict(), ...)"
        )
    models = [state for state in found if any(anchor in state.values for anchor in _ANCHORS)]
    return _choose(models or [max(found, key=lambda state: len(state.values))], path, wanted)


def _choose(found: list[StateDict], path: Path, wanted: str) -> StateDict:
    names = [state.name for state in found]
    if wanted:
        for state in found:
            if state.name == wanted or state.name.startswith(f"{wanted}."):
                return state
        raise SepViTError(f"{path.name} holds no weights under {wanted!r}, but {_listed(names)}")
    if len(found) == 1:
        return found[0]
    levels = [[state for state in found if "ema" in re.split(r"[._]", state.name.lower())]]
    levels += [[state for state in found if state.container == key] for key in _PREFERRED]
    first: list[StateDict] = next((level for level in levels if level), [])
    if len(first) != 1:
        raise SepViTError(
            f"{path.name} holds the weights of several models, {_listed(names)}; name one: "
            f"{path}::{names[0]}"
        )
    others = [name for name in names if name != first[0].name]
    _log.warning(
        f"{path.name} holds {_listed(names)}; taking {first[0].name!r}, for the other one give "
        f"{path}::{others[0]}"
    )
    return first[0]


def _listed(names: list[str]) -> str:
    return " and ".join(repr(name) for name in names)


def _with_tensors(
    content: Mapping[Any, Any], place: tuple[str, ...] = (), seen: frozenset[int] = frozenset()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield each mapping, at any depth, that has names of tensors, with its place."""
    values = {key: value for key, value in content.items() if isinstance(key, str)}
    if any(isinstance(value, Tensor) for value in values.values()):
        yield place, values
    seen |= {id(content)}  # a pickle can hold itself
    for key, value in content.items():
        if isinstance(value, Mapping) and id(value) not in seen:
            yield from _with_tensors(value, (*place, str(key)), seen)


def _split(place: tuple[str, ...], values: dict[str, Any]) -> Iterator[StateDict]:
    """Yield the state dicts that stand in one mapping: one for each prefix of the model's keys."""
    plain = {_without_wrappers(key): key for key in values}
    if len(plain) < len(values):  # a model beside its wrapped twin
        plain = {key: key for key in values}
    prefixes = next(filter(None, (_prefixes(plain, anchor) for anchor in _ANCHORS)), {"": ""})
    by_prefix: dict[str, dict[str, Any]] = {prefix: {} for prefix in prefixes}
    longest_first = sorted(prefixes, key=len, reverse=True)
    for key, original in plain.items():
        prefix = next((prefix for prefix in longest_first if key.startswith(prefix)), None)
        if prefix is not None:
            by_prefix[prefix][key[len(prefix) :]] = values[original]
        elif key not in _COUNTERS:  # belongs to no model: whichever is taken, it is one too many
            for one in by_prefix.values():
                one[original] = values[original]
    for prefix, state in by_prefix.items():
        container = ".".join(place)
        name = ".".join(filter(None, (container, prefixes[prefix].rstrip(".")))) or "."
        counted = {key: value for key, value in state.items() if key not in _COUNTERS}
        yield StateDict(counted, name, container, prefixes[prefix])


def _prefixes(plain: Mapping[str, str], anchor: str) -> dict[str, str]:
    """Map what stands in front of an anchor's keys to the same with the wrappers in it."""
    return {
        key.removesuffix(anchor): original.removesuffix(anchor)
        for key, original in plain.items()
        if key == anchor or key.endswith(f".{anchor}")
    }


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)
