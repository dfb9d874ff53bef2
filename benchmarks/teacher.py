"""Fine-tune EfficientNet-Lite0: the bar for the built-in photo weights, and their teacher.

    python benchmarks/teacher.py DATA/train DATA/test teacher.safetensors [EPOCHS] [IMAGE_SIZE]

The classifier is fitted on frozen features first; then the whole network is trained, unless EPOCHS
is 0. Prints top-1 on the test images after both. `train --teacher teacher.safetensors` reads the
result.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepvit_edge.data.choose import class_names, open_dataset
from sepvit_edge.model.variants import Preprocessing
from sepvit_edge.training.data import TrainingImages, evaluation_batches, training_batches
from sepvit_edge.training.recipe import Augmentation, TrainingRecipe
from sepvit_edge.training.steps import StepPlan
from sepvit_edge.training.teachers import imagenet_efficientnet, save_efficientnet

BATCH = 32
RULE = Preprocessing(crop=1.0)


def main(train: str, test: str, output: str, epochs: int = 6, size: int = 224) -> None:
    """Fit the classifier, fine-tune everything, and save."""
    labels = class_names(train)
    torch.manual_seed(0)
    network = cast(Any, imagenet_efficientnet())
    network.classifier = nn.Linear(network.classifier.in_features, len(labels))
    start = time.monotonic()
    fit_classifier(network, train, labels, size)
    report("classifier alone", network, test, labels, size, start)
    save_efficientnet(network, labels, Path(output))
    if not epochs:
        return
    recipe = TrainingRecipe(
        data=train,
        batch=BATCH,
        epochs=epochs,
        resolution_schedule=((size, 1.0),),
        augmentation=Augmentation(crop_scale=(0.4, 1.0), flip=0.5),
    )
    images = TrainingImages(recipe, labels, open_dataset(train, labels), Path("unused"))
    plan = StepPlan(recipe, len(images), 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-4, plan.steps, pct_start=0.1)
    # Statistics of batch norm stay ImageNet's: batches are small.
    for step, (pixels, classes) in enumerate(training_batches(images, plan, 0, 0, 1)):
        loss = F.cross_entropy(network(prepared(pixels)), classes, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if plan.ends_epoch(step):
            report(f"step {step + 1}", network, test, labels, size, start)
            save_efficientnet(network, labels, Path(output))


def fit_classifier(network: Any, train: str, labels: tuple[str, ...], size: int) -> None:
    """Fit the classifier on the pooled features of the images and their mirror images."""
    features, targets = [], []
    with torch.no_grad():
        for pixels, classes in evaluation_batches(open_dataset(train, labels), RULE, size):
            for x in (pixels, pixels.flip(3)):
                features.append(network.forward_head(network.forward_features(prepared(x)), True))
                targets.append(classes)
    x, y = torch.cat(features), torch.cat(targets)
    optimizer = torch.optim.AdamW(network.classifier.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(60):
        for chosen in torch.randperm(len(x)).split(128):
            loss = F.cross_entropy(network.classifier(x[chosen]), y[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def prepared(pixels: Tensor) -> Tensor:
    """Normalise uint8 pixels as EfficientNet-Lite0 takes them."""
    return ((pixels.float() - 127) / 128).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def report(
    when: str, network: Any, test: str, labels: tuple[str, ...], size: int, start: float
) -> None:
    """Print top-1 on the test images."""
    data, right = open_dataset(test, labels), 0
    for pixels, classes in evaluation_batches(data, RULE, size):
        right += int((network(prepared(pixels)).argmax(1) == classes).sum())
    minutes = (time.monotonic() - start) / 60
    print(f"{when}: top-1 {right / len(data):.2%} of {len(data)}, {minutes:.1f} min", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
