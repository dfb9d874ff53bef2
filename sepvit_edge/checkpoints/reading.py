"""From a file to a state dict and our metadata."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import SepViTError, reason_of
from .builtin import builtin_checkpoints
from .containers import StateDict, find_state_dict
from .metadata import KEY, Metadata, parse_metadata
from .recognise import recognise

_CHOICE = "::"  # between a file's name and the weights to take from it


def locate(path: str | Path) -> tuple[Path, str]:
    """Split what the user names into a file and, behind ``::``, the weights to take from it.

    Parameters
    ----------
    path : str or Path
        A file, ``FILE::KEY``, or the name of a built-in checkpoint.

    Raises
    ------
    SepViTError
        If there is no such file.

    Examples
    --------
    >>> file, key = locate("lite-digits")
    >>> file.name, key
    ('lite-digits.safetensors', '')
    """
    named = str(path)
    try:
        if named in builtin_checkpoints():
            return builtin_checkpoints()[named], ""
        if Path(named).exists():
            return Path(named), ""
        file, separator, key = named.rpartition(_CHOICE)
        if separator and Path(file).exists():
            return Path(file), key
    except (OSError, ValueError) as error:  # too long a name, or one with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise SepViTError(f"the checkpoint {named!r} cannot be read: {reason}") from None
    known = ", ".join(builtin_checkpoints())
    raise SepViTError(f"there is no checkpoint {named} (built in: {known or 'none'})")


def read_state_dict(path: Path, key: str = "") -> tuple[StateDict, Metadata]:
    """Read a file; the metadata of others' checkpoints is empty.

    Parameters
    ----------
    path : Path
        A file that exists.
    key : str
        Place of the weights to take, if there are several.

    Raises
    ------
    SepViTError
        If it cannot be read, is not a checkpoint, or contains code.
    """
    if recognise(path) == "torch":
        return find_state_dict(_torch_content(path), path, key), Metadata()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parse_metadata((file.metadata() or {}).get(KEY, "{}"), path.name)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise _unreadable(path, error) from None
    if metadata.config or metadata.dense:  # ours: no tool has wrapped it
        return StateDict(tensors, ".", "", ""), metadata
    return find_state_dict(tensors, path, key), metadata


def _torch_content(path: Path) -> object:
    try:
        # Of a path torch would read the suffix. weights_only: a pickle may name tensors and plain
        # containers, and nothing else.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        if name is None:
            raise _unreadable(path, error) from None
        raise SepViTError(
            f"{path.name} was refused: it calls {name[1]}; save the state dict alone "
            "(torch.save(model.state_dict(), ...))"
        ) from None
    except PermissionError:
        raise
    except Exception as error:  # the reader of pickles raises IndexError, struct.error, ...
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> SepViTError:
    reason = reason_of(error).rstrip(".")
    return SepViTError(
        f"{path.name} is not a readable checkpoint ({reason}); copy or download it again, or "
        "save the state dict alone: torch.save(model.state_dict(), ...)"
    )
