"""Train SepViT on a built-in data set: `python -m sepvit_edge.train`.

Enough to make the weights that ship: AdamW, a cosine schedule, small random affine changes. No
weight depends on the image size, so most epochs run at a small one.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .console import command, console, progress


def _phases(text: str) -> list[tuple[int, int]]:
    from .errors import SepViTError
    from .variants import check_image_size

    phases = []
    for part in text.split(","):
        size, _, epochs = part.partition(":")
        if not (size.strip().isdigit() and epochs.strip().isdigit()):
            raise SepViTError(f"a schedule is SIZE:EPOCHS,SIZE:EPOCHS ..., not {text!r}")
        phases.append((check_image_size(int(size)), int(epochs)))
    return phases


@command
def main(
    output: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    variant: Annotated[str, typer.Option(help="lite, t, s or b.")] = "lite",
    data: Annotated[str, typer.Option(help="A built-in data set.")] = "digits",
    schedule: Annotated[str, typer.Option(help="SIZE:EPOCHS, in order.")] = "64:20,224:6",
    batch: Annotated[int, typer.Option(help="Images a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Peak, of the first phase.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
) -> None:
    """Train from scratch, report held-out top-1, write the weights and their card."""
    import torch
    import torch.nn.functional as F

    from .data import open_dataset, preprocess
    from .reference import create_model, with_config
    from .variants import ModelConfig, Preprocessing, find_variant
    from .weights import save_checkpoint

    # Second moments of near-dead weights decay into denormals, which a CPU computes in microcode.
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    phases = _phases(schedule)
    rule = Preprocessing(crop=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    labels = tuple(str(i) for i in range(10))
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (rule.mean, rule.std))

    def images(split: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        samples = open_dataset(data, labels, split)
        pixels = np.stack([preprocess(samples[i].image, rule, size) for i in range(len(samples))])
        classes = [samples[i].label for i in range(len(samples))]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor(classes)

    def normalized(pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.float() / 255 - mean) / std

    model = create_model(
        variant,
        len(labels),
        phases[0][0],
        preprocessing=rule,
        labels=labels,
        drop_path=find_variant(variant).drop_path,
    )
    start = time.monotonic()
    for index, (size, epochs) in enumerate(phases):
        config = ModelConfig(variant, len(labels), size, rule, labels)
        model = with_config(model, config).train()
        pixels, classes = images("train", size)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
        )
        steps = epochs * math.ceil(len(pixels) / batch)
        # A later phase starts from trained weights: half the rate.
        peak = learning_rate * (1.0 if index == 0 else 0.5)
        warmup = max(1, steps // 20)
        step = 0
        with progress(f"{size} px", steps) as advance:
            for _ in range(epochs):
                for chosen in torch.randperm(len(pixels)).split(batch):
                    rise = (step + 1) / warmup
                    fall = (1 + math.cos(math.pi * step / steps)) / 2
                    for group in optimizer.param_groups:
                        group["lr"] = peak * min(rise, fall)
                    n = len(chosen)
                    angle = torch.empty(n).uniform_(-0.2, 0.2)
                    scale = torch.empty(n).uniform_(0.9, 1.2)
                    matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1)
                    matrix = matrix.reshape(n, 2, 2) * scale[:, None, None]
                    shift = torch.empty(n, 2, 1).uniform_(-0.12, 0.12)
                    grid = F.affine_grid(torch.cat((matrix, shift), 2), [n, 3, size, size], False)
                    x = F.grid_sample(pixels[chosen].float(), grid, align_corners=False)
                    # bfloat16 where it is safe: half the time on a CPU that has it
                    with torch.autocast("cpu", torch.bfloat16):
                        logits = model(normalized(x)).float()
                    loss = F.cross_entropy(logits, classes[chosen], label_smoothing=0.1)
                    optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    step += 1
                    advance(1)
        model.eval()
        pixels, classes = images("test", size)
        with torch.no_grad():
            top1 = [
                (model(normalized(x)).argmax(1) == y).sum().item()
                for x, y in zip(pixels.split(50), classes.split(50), strict=True)
            ]
        accuracy = sum(top1) / len(classes)
        console.print(
            f"{size} px: held-out top-1 {accuracy:.2%} of {len(classes)}, loss {loss:.3f}"
        )
        save_checkpoint(model, output, dtype=torch.float16, trained_on=f"{data}/train")
    card = {
        "data": data,
        "command": f"python -m sepvit_edge.train --variant {variant} --data {data} "
        f"--schedule {schedule} --batch {batch} --learning-rate {learning_rate} --seed {seed} "
        f"--output {output.name}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "held_out_images": len(classes),
        "held_out_top1": accuracy,
    }
    output.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
