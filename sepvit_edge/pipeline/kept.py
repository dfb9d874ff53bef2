"""Logits that are kept on disk as they come, so that an interrupted evaluation continues."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..files import cache_folder
from .saving import only_writer

_HEAD = struct.Struct("<32sQ")  # digest of the pixels, bytes of the logits


class KeptLogits:
    """Logits of batches, in order; see `kept_logits`.

    Attributes
    ----------
    found : int
        Number of images whose logits an earlier run has left.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ended = False
        self.found = 0

    def get(self, pixels: np.ndarray) -> dict[str, np.ndarray] | None:
        """Return the logits of the next batch, if they are kept and of these pixels."""
        if self._ended:
            return None
        start = self._file.tell()
        head = self._file.read(_HEAD.size)
        if len(head) == _HEAD.size:
            digest, size = _HEAD.unpack(head)
            data = self._file.read(size) if digest == _digest(pixels) else b""
            if data and len(data) == size:
                try:
                    kept = load(data)
                except SafetensorError:
                    kept = {}
                if kept:
                    self.found += len(pixels)
                    return kept
        # The end, half a record, or other images: from here on everything is new.
        self._file.seek(start)
        self._file.truncate()
        self._ended = True
        return None

    def add(self, pixels: np.ndarray, logits: Mapping[str, np.ndarray]) -> None:
        """Keep the logits of the batch that `get` has not found."""
        data = save({name: np.ascontiguousarray(array) for name, array in logits.items()})
        self._file.write(_HEAD.pack(_digest(pixels), len(data)) + data)
        self._file.flush()


def kept_of_device(facts: Mapping[str, Any]) -> Path:
    """Return the file in the cache that keeps the logits of a device."""
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    folder = cache_folder() / "evaluations"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{key[:16]}.logits"


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


@contextmanager
def kept_logits(path: Path, facts: Mapping[str, Any]) -> Iterator[KeptLogits]:
    """Keep logits in a file until the block succeeds; the next run with the same facts reads them.

    Parameters
    ----------
    path : Path
        The file, which goes when the block succeeds.
    facts : mapping
        What the logits depend on beside the pixels.

    Yields
    ------
    KeptLogits
        At its first batch.

    Raises
    ------
    SepViTError
        If another process uses the file.
    """
    header = json.dumps(facts, sort_keys=True).encode() + b"\n"
    with only_writer(path, path):
        path.touch()
        with path.open("r+b") as file:
            if file.readline() != header:
                file.seek(0)
                file.truncate()
                file.write(header)
            yield KeptLogits(file)
        path.unlink()
