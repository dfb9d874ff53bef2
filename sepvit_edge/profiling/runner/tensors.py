"""Tensors: golden.safetensors, and pixels in the layout that a program takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def read_safetensors(path: Path) -> dict:
    """Read a safetensors file: 8 bytes length of the header, JSON header, data."""
    types = {"U8": np.uint8, "F32": np.float32}
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = np.frombuffer(data[start:end], types[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def batches(pixels: np.ndarray, facts: dict) -> Iterator:
    """Yield the input of each call, and its number of images; the last is filled up with black.

    `pixels` are uint8 (N, H, W, 3), `facts` the manifest's ``input``.
    """
    batch = facts["shape"][0]
    for start in range(0, len(pixels), batch):
        taken = pixels[start : start + batch]
        piece = np.zeros((batch, *pixels.shape[1:]), np.uint8)
        piece[: len(taken)] = taken
        yield as_input(piece, facts), len(taken)


def as_input(pixels: np.ndarray, facts: dict) -> np.ndarray:
    """Bring uint8 (B, H, W, 3) pixels into the layout and dtype that the manifest states."""
    if facts["layout"] == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels, dtype=facts["dtype"])
