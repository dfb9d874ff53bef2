"""Logits that are kept on disk as they come, so that an interrupted evaluation continues."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..files import cache_folder
from .saving import only_writer

_HEAD = struct.Struct("<32sQ")  # key of the piece, bytes of the logits


class KeptLogits:
    """Logits of pieces of images, by the images' digests; see `kept_logits`.

    Attributes
    ----------
    keys : frozenset of bytes
        Keys of the pieces that an earlier run has left (`key_of`).
    found : int
        Number of their images that this run has come to.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[bytes, tuple[int, int]] = {}
        end = file.tell()
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            key, length = _HEAD.unpack(head)
            if length > _size(file) - file.tell():
                break
            try:
                load(file.read(length))
            except SafetensorError:
                break
            self._places[key] = file.tell() - length, length
            end = file.tell()
        # The end, half a record, or a damaged one: from here on everything is new.
        file.seek(end)
        file.truncate()
        self.keys = frozenset(self._places)
        self.found = 0

    def exchange(
        self, digests: Sequence[bytes], logits: dict[str, np.ndarray] | None
    ) -> dict[str, np.ndarray]:
        """Keep the logits of a piece; or return those that are kept, where there are none.

        Parameters
        ----------
        digests : sequence of bytes
            SHA-256 of the pixels of each image.
        logits : dict or None
            New ones; None for a piece whose key is in `keys`.
        """
        if logits is not None:
            data = save({name: np.ascontiguousarray(array) for name, array in logits.items()})
            self._file.write(_HEAD.pack(key_of(digests), len(data)) + data)
            self._file.flush()
            return logits
        place, length = self._places[key_of(digests)]
        end = self._file.tell()
        self._file.seek(place)
        data = self._file.read(length)
        self._file.seek(end)
        self.found += len(digests)
        return load(data)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def key_of(digests: Sequence[bytes]) -> bytes:
    """Return the key of a piece of images, from the digest of each."""
    return hashlib.sha256(b"".join(digests)).digest()


def kept_of_device(facts: Mapping[str, Any]) -> Path:
    """Return the file in the cache that keeps the logits of a device."""
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    folder = cache_folder() / "evaluations"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{key[:16]}.logits"


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
