"""Instructions of Lite on the emulated Cortex-A76: each package, and the model as it stands.

    scripts/emulated-cortex-a76.sh
    python benchmarks/instructions.py                          # prints what changed
    python benchmarks/instructions.py --write                  # docs/data/instructions.json

What else the machine does changes the time that this takes, and no count. An instruction is not a
cycle: counts compare the work of two programs for the same runtime and precision.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from exporters import export_naive

from sepvit_edge.backends.registry import RUNTIMES
from sepvit_edge.checkpoints.files import load_checkpoint
from sepvit_edge.config.recipe import load_recipe, recipes
from sepvit_edge.model.logits import normalize
from sepvit_edge.model.reference import SepViT
from sepvit_edge.package.folder import Package, list_files, write_manifest
from sepvit_edge.package.manifest import MANIFEST
from sepvit_edge.pipeline.export import export_package
from sepvit_edge.profiling.devices import load_device
from sepvit_edge.profiling.measuring import Request, measure_packages

BOARD = "emulated-cortex-a76"
DATA = Path(__file__).resolve().parent.parent / "docs" / "data" / "instructions.json"
WEIGHTS, IMAGE_SIZE = "lite-digits", 64
RECIPES = (
    "onnxruntime-fp32",
    "onnxruntime-fp16-arm",
    "onnxruntime-int8",
    "openvino-fp32",
    "openvino-fp16",
    "openvino-int8",
)
MOST_GROWTH = 0.02  # above the baseline; tests/devices/test_instructions.py


class Pixels(torch.nn.Module):
    """The reference on pixels 0..255, so that it takes what its packages take."""

    def __init__(self, model: SepViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) -> (B, num_classes)."""
        return self.model(normalize(self.model, pixels.permute(0, 2, 3, 1)))


def lite() -> SepViT:
    """Return the model whose instructions are counted."""
    model = load_checkpoint(WEIGHTS, image_size=IMAGE_SIZE)
    assert isinstance(model, SepViT)
    return model


def naive_package(package: Package, model: SepViT, folder: Path) -> Package:
    """Put the model as the runtime's own exporter writes it into a copy of a package."""
    shutil.copytree(package.path, folder)
    pixels = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    export_naive(package.manifest.target, Pixels(model), pixels, folder)
    (folder / MANIFEST).unlink()
    facts = {"shape": list(pixels.shape), "dtype": "float32", "layout": "NCHW"}
    changed = {
        "input": package.manifest.input.model_copy(update=facts),
        "files": list_files(folder),
    }
    write_manifest(package.manifest.model_copy(update=changed), folder)
    return Package(folder)


def count(package: Package) -> int:
    """Return the median of the instructions that a warm call takes on the board."""
    (profile,) = measure_packages([package], BOARD, load_device(BOARD)[1], Request())
    assert profile.complete and profile.instructions is not None, profile.incomplete_reason
    return profile.instructions.p50


def baseline() -> dict[str, dict[str, Any]]:
    """Return the kept counts by recipe."""
    return json.loads(DATA.read_bytes())["counts"] if DATA.is_file() else {}


def measure(recipe: str, scratch: Path, naive: bool = True) -> dict[str, Any]:
    """Export by a recipe and count; fp32 also as it stands."""
    chosen, model = load_recipe(recipes()[recipe]), lite()
    package = export_package(model, recipe=chosen, output=scratch / recipe, images=8)
    runtime = RUNTIMES[chosen.target].distribution
    found = {"runtime": f"{runtime} {version(runtime)}", "edge": count(package)}
    if naive and chosen.precision == "fp32":
        found["naive"] = count(naive_package(package, model, scratch / f"{recipe}-naive"))
    return found


def main() -> None:
    """Parse the options, count, print a line a recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", action="append", choices=RECIPES)
    parser.add_argument("--write", action="store_true", help="keep the counts as the baseline")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    kept = baseline()
    for recipe in options.recipe or RECIPES:
        with tempfile.TemporaryDirectory() as scratch:
            found = measure(recipe, Path(scratch))
        change = f", {found['edge'] / kept[recipe]['edge'] - 1:+.2%}" if recipe in kept else ""
        print(f"{recipe} ({found['runtime']}): {found['edge']:,} instructions{change}", flush=True)
        if "naive" in found:
            print(f"  as it stands: {found['naive']:,}, {found['naive'] / found['edge']:.2f} times")
        if options.write:
            kept[recipe] = found
            model = f"{WEIGHTS} at {IMAGE_SIZE} px, batch 1, one thread"
            facts = {"board": BOARD, "model": model, "counts": dict(sorted(kept.items()))}
            DATA.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
