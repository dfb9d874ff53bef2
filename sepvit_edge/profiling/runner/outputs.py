"""The outputs of a package for a file of pixels, from which accuracy on this device is computed."""

from __future__ import annotations

import argparse

import numpy as np

from .errors import Refusal
from .manifest import read_manifest
from .output import Output
from .runtimes.registry import open_runtime
from .tensors import batches


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
    output.progress(f"running {len(pixels)} images")
    start = 0
    for array, count in batches(pixels, manifest["input"]):
        output.rows(start, np.asarray(call([array])[0][:count], np.float32))
        start += count
    return 0
