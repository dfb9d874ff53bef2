"""The validation figure of dense models: mean IoU, or AP50."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ...data.dense.sample import DenseDataset, DenseSample, Objects
from ...data.fit import Fit
from ...data.preprocess import fit_image
from ...model.dense import DenseModel
from ...package.postprocessing import DetectionRule, SegmentationRule
from ...postprocess.detection import Detections, detect
from ...postprocess.segmentation import class_map
from ...scoring.detection import Precision, average_precision
from ...scoring.segmentation import PixelCounts

_BATCH = 16


@dataclass(frozen=True)
class _Answer:
    sample: DenseSample
    fit: Fit
    outputs: tuple[np.ndarray, ...]


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
    for answer in _answers(model, data):
        assert answer.sample.mask is not None
        predicted = answer.fit.map_back(class_map(answer.outputs[0], SegmentationRule()))
        counts.add(answer.sample.mask, predicted)
    return counts


def measure_detection(model: DenseModel, data: DenseDataset) -> Precision:
    """Measure average precision, in pixels of the images; parameters as above."""
    truth: list[Objects] = []
    found: list[Detections] = []
    rule = DetectionRule()
    for answer in _answers(model, data):
        assert answer.sample.objects is not None
        logits, deltas = answer.outputs
        one = detect(logits, deltas, rule, model.config.input_size, answer.fit.content)
        found.append(Detections(answer.fit.boxes_back(one.boxes), one.scores, one.classes))
        truth.append(answer.sample.objects)
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
def _answers(model: DenseModel, data: DenseDataset) -> Iterator[_Answer]:
    """Yield the outputs of each image, as a package would compute them."""
    config = model.config
    device = next(model.parameters()).device
    rule = config.preprocessing
    mean, std = (torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (rule.mean, rule.std))
    for start in range(0, len(data), _BATCH):
        samples = [data[i] for i in range(start, min(start + _BATCH, len(data)))]
        fitted = [fit_image(sample.image, rule.mean, config.input_size) for sample in samples]
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in fitted]))
        x = pixels.to(device).permute(0, 3, 1, 2).float() / 255
        outputs = model((x - mean) / std)
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        arrays = [tensor.float().cpu().numpy() for tensor in tensors]
        for i, (sample, (_, fit)) in enumerate(zip(samples, fitted, strict=True)):
            yield _Answer(sample, fit, tuple(array[i] for array in arrays))
