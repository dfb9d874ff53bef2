"""The validation figure of dense models: mean IoU, or AP50."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from ...data.dense.sample import DenseDataset, DenseSample, Objects
from ...data.preprocess import fit_image
from ...model.dense import DenseModel
from ...pipeline.answers import Answer, finished
from ...pipeline.facts import postprocessing_of
from ...postprocess.detection import Detections
from ...scoring.detection import Precision, average_precision
from ...scoring.segmentation import PixelCounts

_BATCH = 16


def measure_segmentation(model: DenseModel, data: DenseDataset) -> PixelCounts:
    """Count the pixels of class maps, at the size of the images.

    Parameters
    ----------
    model : DenseModel
        In evaluation mode.
    data : DenseDataset
        Images with masks.
    """
    counts = PixelCounts(model.config.labels)
    for sample, answer in _answers(model, data):
        assert sample.mask is not None and answer.classes is not None
        counts.add(sample.mask, answer.classes)
    return counts


def measure_detection(model: DenseModel, data: DenseDataset) -> Precision:
    """Measure average precision, in pixels of the images; parameters as above."""
    truth: list[Objects] = []
    found: list[Detections] = []
    for sample, answer in _answers(model, data):
        assert sample.objects is not None and answer.found is not None
        truth.append(sample.objects)
        found.append(answer.found)
    return average_precision(truth, found, model.config.labels)


def validation_figure(model: nn.Module, data: DenseDataset) -> float:
    """Return mean IoU or AP50, 0..1; the model is put into evaluation mode and back."""
    assert isinstance(model, DenseModel)
    training = model.training
    model.eval()
    if model.config.task == "segmentation":
        figure = measure_segmentation(model, data).mean_iou
    else:
        figure = measure_detection(model, data).ap50
    model.train(training)
    return figure


@torch.no_grad()
def _answers(model: DenseModel, data: DenseDataset) -> Iterator[tuple[DenseSample, Answer]]:
    """Yield each image and its answer, as a package would give it."""
    config, rule = model.config, postprocessing_of(model.config.task)
    assert rule is not None
    device = next(model.parameters()).device
    mean, std = (
        torch.tensor(values, device=device).reshape(1, 3, 1, 1)
        for values in (config.preprocessing.mean, config.preprocessing.std)
    )
    for start in range(0, len(data), _BATCH):
        samples = [data[i] for i in range(start, min(start + _BATCH, len(data)))]
        fitted = [
            fit_image(sample.image, config.preprocessing.mean, config.input_size)
            for sample in samples
        ]
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in fitted]))
        x = pixels.to(device).permute(0, 3, 1, 2).float() / 255
        outputs = model((x - mean) / std)
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        arrays = [tensor.float().cpu().numpy() for tensor in tensors]
        for i, (sample, (_, fit)) in enumerate(zip(samples, fitted, strict=True)):
            yield sample, finished([array[i] for array in arrays], rule, config.input_size, fit)
