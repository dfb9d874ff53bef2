"""Throughput of the reference on a GPU beside the paper's: `python benchmarks/gpu_throughput.py`.

The paper's figures are of a V100 (images a second); another card's are no contest, but their ratios
between variants should be alike.
"""

from __future__ import annotations

import json
import sys

import torch

from sepvit_edge import create_model
from sepvit_edge.model.variants import VARIANTS

PAPER = {"t": 729, "s": 471, "b": 302}  # arXiv 2203.15380, images a second on a V100
BATCHES = (64, 128)


def throughput(variant: str, batch: int, dtype: torch.dtype) -> float:
    """Images a second, the median of ten timed runs."""
    model = create_model(variant).eval().cuda()
    x = torch.randn(batch, 3, 224, 224, device="cuda")
    seconds = []
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype is not torch.float32):
        for run in range(15):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            model(x)
            end.record()
            torch.cuda.synchronize()
            if run >= 5:
                seconds.append(start.elapsed_time(end) / 1e3)
    return batch / sorted(seconds)[len(seconds) // 2]


def main() -> None:
    """Print a JSON document with device and versions."""
    if not torch.cuda.is_available():
        sys.exit("error: this needs a CUDA GPU, and torch sees none")
    rows = [
        {
            "variant": VARIANTS[variant].name,
            "batch": batch,
            "dtype": str(dtype).removeprefix("torch."),
            "images_per_second": round(throughput(variant, batch, dtype), 1),
            "paper_v100": PAPER.get(variant),
        }
        for variant in VARIANTS
        for batch in BATCHES
        for dtype in (torch.float32, torch.bfloat16)
    ]
    device = torch.cuda.get_device_name()
    print(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
