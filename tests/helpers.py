"""What several test files need: models, pixels, processes, and the folders that tests read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# The tests run side by side, a process a core: more threads than that only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent

# A limit that only catches what hangs: a loaded machine takes many times the time of an idle one.
HANGS = 3600

# Lite with one block a stage, for what does not depend on the model: a third of the time.
MINI = "lite-1-1-1-1"
# Each kind of block in as few blocks as have them: grouped attention over four windows and one.
FEW = "lite-1-2-2-1"

# What an app knows at the least: the first of the profile documents that every app reads.
MINIMAL: dict[str, Any] = json.loads((TESTS / "vectors" / "profiles.json").read_bytes())[0][
    "document"
]


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def mini_digits():
    """What the built-in weights for digits are with the first block of each stage alone.

    Trained weights, and no worse on digits at 64 pixels (94 of the first 100), in a third of the
    time: what depends on weights of a real distribution, int8 first of all, is tested with them.
    """
    from sepvit_edge.checkpoints.files import load_checkpoint
    from sepvit_edge.model.reference import SepViT

    full = load_checkpoint("lite-digits", image_size=64)
    model = SepViT(replace(full.config, variant=MINI))
    model.source = full.source
    kept = model.state_dict().keys()
    model.load_state_dict({k: v for k, v in full.state_dict().items() if k in kept})
    return model.eval()


def mini_digits_int8():
    """`mini_digits` as a quantisation-aware checkpoint, calibrated and not trained any further."""
    from sepvit_edge.data.digits import Digits
    from sepvit_edge.quantization.calibration import calibrate
    from sepvit_edge.training.quantized import QuantizedTrainee

    model = mini_digits()
    quantization = calibrate(model, Digits("calibration"), images=8)
    return QuantizedTrainee(model, quantization, 2).finished()


def jittered(variant: str, num_classes: int = 10, image_size: int = 64, seed: int = 0):
    """A model whose every parameter is far from its initial value, so that no error hides.

    Fresh biases are zero and fresh norms are one: a form that drops them would pass.
    """
    import sepvit_edge

    torch.manual_seed(seed)
    model = sepvit_edge.create_model(variant, num_classes, image_size)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(0.2 * noise)
            elif name.endswith("bias"):
                parameter.add_(0.1 * noise)
            elif name.endswith("win_tokens"):
                parameter.copy_(noise)
            elif parameter.ndim == 2:
                parameter.mul_(3)
    return model.eval()


def dense_model(
    head: str,
    input_size: tuple[int, int],
    window: str = "paper",
    variant: str = MINI,
    num_classes: int = 5,
    channels: int = 16,
):
    """A small dense model whose every weight is far from its initial value."""
    import sepvit_edge
    from sepvit_edge.model.dense import HEADS

    torch.manual_seed(0)
    task = HEADS[head].task
    model = sepvit_edge.create_model(
        variant,
        num_classes,
        task=task,
        head=head,
        input_size=input_size,
        window=window,
        channels=channels,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif parameter.ndim == 1:  # of norms
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.ndim == 2:
                parameter.mul_(3)
            elif "head" in name or "neck" in name:  # as large as ReLUs keep a signal
                torch.nn.init.kaiming_normal_(parameter)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def macs_share(model, layers: Iterable[str]) -> float:
    """Share of a model's MACs that layers of its edge form have."""
    from sepvit_edge.model.edge import EdgeModel
    from sepvit_edge.model.graph import macs_by_operation, trace

    macs = macs_by_operation(trace(EdgeModel(model)))
    names = {name.replace(".", "_") for name in layers}
    return sum(n for name, n in macs.items() if name.split("__")[0] in names) / macs.total()


def facts_of(manifest) -> dict[str, Any]:
    """What a profile document says of a package."""
    return MINIMAL["package"] | {
        "digest": manifest.digest,
        "variant": manifest.model.variant,
        "target": manifest.target,
        "precision": manifest.precision,
        "image_size": manifest.model.image_size,
        "num_classes": manifest.model.num_classes,
        "batch": manifest.input.shape[0],
        "macs": manifest.model.macs,
    }


def profile_with(runs_ms: Any, **changes: Any):
    """A phone's profile document with these times; `device__name` is the name in its device."""
    from sepvit_edge.profiling.document import Profile
    from sepvit_edge.profiling.runner.latency import distribution

    document = json.loads(json.dumps(MINIMAL))
    document["producer"]["name"] = "ios-app"
    document["device"]["name"] = "iPhone 15 Pro"
    document["runtime"] |= {"name": "Core ML", "version": "18.0", "execution": "all"}
    document["package"] |= {"variant": "lite", "target": "coreml", "precision": "fp16"}
    document["package"] |= {"image_size": 224, "model_mb": 7.3}
    document["not_measured"] = [{"what": "energy", "reason": "iOS has no energy counter"}]
    document["latency"] = distribution(list(np.asarray(runs_ms, dtype=float) / 1e3))
    for path, value in changes.items():
        *sections, key = path.split("__")
        target = document
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
    return Profile.model_validate(document)


def random_pixels(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Smooth random images, nearer to photographs than white noise is."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    resample = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(s).resize((size, size), resample)) for s in small])


def run_process(*arguments: object, **options: object) -> Outcome:
    """Run `python -m sepvit_edge.<command> ...` in a process of its own."""
    command = [sys.executable, "-m", f"sepvit_edge.{arguments[0]}", *map(str, arguments[1:])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, **options)  # type: ignore[call-overload]
    return Outcome(done.returncode, done.stdout, done.stderr)


Runner = Callable[..., Outcome]
Exporter = Callable[..., Any]
Arguments = Sequence[object]
