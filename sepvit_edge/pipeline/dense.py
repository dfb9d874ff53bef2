"""Golden vectors and parity of dense packages."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import numpy as np
from safetensors.numpy import save_file

from ..data.fit import Fit
from ..data.preprocess import input_pixels
from ..data.sample import Taken
from ..metrics import sqnr_db
from ..model.dense import DenseModel
from ..model.edge.dense.network import OUTPUTS
from ..model.logits import reference_heads, reference_outputs, torch_threads
from ..package.manifest import GOLDEN, OutputParity, Parity
from ..package.postprocessing import TwoStageRule
from ..package.session import PackageSession
from ..postprocess.two_stage import Heads
from ..quantization.interface import ProgramQuantization
from ..quantization.scheme import LayerQuantization
from .agreement import Agreement
from .answers import Answer, finished
from .facts import postprocessing_of
from .golden import NOTICE, golden_images
from .outputs import selection_of
from .parity import rounded
from .regions import best_regions, region_outputs

# Pieces of photographs; `golden_images` has all.
_GOLDEN_IMAGES = (2, 3)
# Numbers of an output that golden vectors keep, for each image.
_KEPT = 1 << 16


def kept(output: np.ndarray) -> np.ndarray:
    """Return the numbers of an output that golden vectors keep, (N, numbers).

    Of the flattened output of an image every k-th number from the first on, where k is the least
    odd number that leaves at most 65,536.
    """
    flat = output.reshape(len(output), -1)
    step = -(-flat.shape[1] // _KEPT) | 1
    return np.ascontiguousarray(flat[:, ::step])


def write_dense_golden(model: DenseModel, session: PackageSession | None, folder: Path) -> None:
    """Write the golden vectors of a dense package.

    Parameters
    ----------
    model : DenseModel
        The reference.
    session : PackageSession or None
        The package; None if nothing on this system runs it.
    folder : Path
        The package's folder.
    """
    everything = golden_images()
    images = [everything[i] for i in _GOLDEN_IMAGES]
    tensors = {f"image.{i}": np.asarray(image) for i, image in enumerate(images)}
    pixels = tensors["pixels"] = input_pixels(images, model.config)
    with torch_threads(1):  # the bytes do not depend on the number of cores
        found = {"reference": reference_outputs(model, pixels)}
    if session is not None:
        found["package"] = session.run_pixels(pixels)
    heads = {"reference": reference_heads(model)}
    if session is not None:
        heads["package"] = session.run_graph
    names = OUTPUTS[model.config.answer]
    for whose, outputs in found.items():
        for i, output in enumerate(outputs):
            tensors[f"{whose}.{names[i]}"] = kept(output)
        sides = [(image.height, image.width) for image in images]
        answers = _answers(model, outputs, sides, heads[whose])
        tensors |= {f"{whose}.{name}": answer for name, answer in answers.items()}
    save_file(tensors, folder / GOLDEN, {"images": NOTICE})
    (folder / GOLDEN).chmod(0o644)  # safetensors makes it private; apps and devices read it too


def _answers(
    model: DenseModel,
    outputs: list[np.ndarray],
    sides: list[tuple[int, int]],
    heads: Heads,
) -> dict[str, np.ndarray]:
    """Return the finished class maps, or boxes, in the inputs of images of some heights, widths."""
    if model.config.task == "segmentation":
        answers = _in_inputs(model, outputs, heads)
        maps = np.stack([one.classes for one in answers if one.classes is not None])
        # Types that every reader of golden vectors knows.
        return {"class_map": maps.astype(np.uint8 if maps.max() < 256 else np.float32)}
    contents = [Fit.of(image, model.config.input_size).content for image in sides]
    tensors = {}
    for i, one in enumerate(_in_inputs(model, outputs, heads, contents)):
        assert one.found is not None
        tensors[f"boxes.{i}"] = one.found.boxes
        tensors[f"scores.{i}"] = one.found.scores
        tensors[f"classes.{i}"] = one.found.classes.astype(np.float32)
        if one.found.masks is not None:
            areas = [mask.pixels.sum() for mask in one.found.masks]
            tensors[f"mask_areas.{i}"] = np.array(areas, np.float32)
    return tensors


def _in_inputs(
    model: DenseModel,
    outputs: list[np.ndarray],
    heads: Heads,
    contents: list[tuple[int, int]] | None = None,
) -> list[Answer]:
    """Return the answers in pixels of the input, each cut to its content; whole by default."""
    size, rule = model.config.input_size, postprocessing_of(model.config.answer)
    assert rule is not None
    fits = [Fit(content, content) for content in contents or [size] * len(outputs[0])]
    return [
        finished(one, rule, size, fit, heads)
        for one, fit in zip(zip(*outputs, strict=True), fits, strict=True)
    ]


def _agreement(
    model: DenseModel,
    session: PackageSession,
    reference: list[np.ndarray],
    measured: list[np.ndarray],
) -> float:
    """Return the share of pixels or boxes that agree, 0..1; 1 where neither finds a box."""
    agreed = Agreement()
    wanted = _in_inputs(model, reference, reference_heads(model))
    found = _in_inputs(model, measured, session.run_graph)
    for first, second in zip(wanted, found, strict=True):
        agreed.add(first, second)
    return 1.0 if agreed.share is None else agreed.share


def measure_dense_parity(
    session: PackageSession,
    model: DenseModel,
    data: Taken,
    quantization: ProgramQuantization | None = None,
) -> Parity:
    """Compare a dense package with its reference, output by output.

    Parameters
    ----------
    session : PackageSession
        The package.
    model : DenseModel
        The reference with the same weights.
    data : Taken
        Images that were neither trained nor calibrated on.
    quantization : ProgramQuantization, optional
        Integers and scales of an int8 package, to compare it with torch's int8 too.

    Returns
    -------
    Parity
        Its own figures are those of the worst output.
    """
    pixels = input_pixels([data[i].image for i in range(len(data))], model.config)
    measured, reference = session.run_pixels(pixels), reference_outputs(model, pixels)
    agreed = _agreement(model, session, reference, measured)
    names = list(session.output_names)
    quantized: list[np.ndarray | None] = [None] * len(measured)
    if quantization is not None:
        quantized = [*cast(LayerQuantization, quantization).outputs(model)(pixels)]
    rule = postprocessing_of(model.config.answer)
    if isinstance(rule, TwoStageRule):
        regions = list(best_regions(reference, model.config, rule))
        for graph in session.package.manifest.graphs or ():
            names += [output.name for output in graph.outputs]
        reference = reference + region_outputs(regions, reference_heads(model))
        measured = measured + region_outputs(regions, session.run_graph)
        if quantization is None:
            quantized += [None] * (len(names) - len(quantized))
        else:
            heads = cast(LayerQuantization, quantization).heads(model)
            quantized += region_outputs(regions, heads)
    outputs = tuple(
        OutputParity(
            name=name,
            max_abs_error=rounded(float(np.abs(wanted - found).max())),
            range=rounded(float(wanted.max() - wanted.min())),
            sqnr_db=round(sqnr_db(wanted, found), 1),
            sqnr_quantized_db=None if torch is None else round(sqnr_db(torch, found), 1),
        )
        for name, wanted, found, torch in zip(names, reference, measured, quantized, strict=True)
    )
    worst = min(outputs, key=lambda output: output.sqnr_db)
    against_torch = [o.sqnr_quantized_db for o in outputs if o.sqnr_quantized_db is not None]
    return Parity(
        data=data.name,
        data_sha256=hashlib.sha256(pixels.data).hexdigest(),
        images=len(pixels),
        max_abs_error=worst.max_abs_error,
        logits_range=worst.range,
        sqnr_db=worst.sqnr_db,
        top1_agreement=rounded(agreed),
        sqnr_quantized_db=min(against_torch, default=None),
        selection=selection_of(data),
        outputs=outputs,
    )
