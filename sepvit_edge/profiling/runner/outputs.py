"""The outputs of a package for a file of pixels, from which accuracy on this device is computed."""

from __future__ import annotations

import argparse

import numpy as np

from .errors import Refusal
from .manifest import read_manifest
from .output import Output
from .runtimes.registry import open_runtime
from .tensors import as_input


def write_outputs(options: argparse.Namespace, output: Output) -> int:
    """Run every image of `options.outputs`, write the first output of each; return 0.

    The file holds pixels as the package's `input` takes them, uint8 (N, H, W, 3) as numpy saves
    them. It was copied here for this run alone, and is removed when it is read.
    """
    manifest = read_manifest(options.package)
    try:
        pixels = np.load(options.outputs, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Refusal(f"{options.outputs} cannot be read: {error}") from None
    options.outputs.unlink()
    runtime = open_runtime(manifest, options.threads, options.execution)
    call = runtime.load(options.package / runtime.model)
    batch = manifest["input"]["shape"][0]
    output.progress(f"running {len(pixels)} images")
    for start in range(0, len(pixels), batch):
        piece = np.zeros((batch, *pixels.shape[1:]), np.uint8)
        taken = pixels[start : start + batch]
        piece[: len(taken)] = taken
        first = call([as_input(piece, manifest["input"])])[0][: len(taken)]
        output.rows(start, np.asarray(first, np.float32))
    return 0
