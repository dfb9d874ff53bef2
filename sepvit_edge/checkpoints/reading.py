"""From a file to a state dict and our metadata."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import SepViTError, reason_of
from .containers import StateDict, find_state_dict
from .metadata import KEY, Metadata, parse_metadata
from .recognise import recognise


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
