"""SepViT-T and its peers from timm as model files.

Ours are exported by the shipped recipes, peers by each runtime's own exporter; peers become int8 by
NNCF for OpenVINO, and by ONNX Runtime's own quantiser.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import timm
import torch
from exporters import ModelFile, export_naive, lower
from timm.utils import reparameterize_model

from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.config.recipe import QuantizationOptions, find_recipe
from sepvit_edge.model.dense.network import module_macs
from sepvit_edge.model.edge import EdgeModel, find_form
from sepvit_edge.model.reference import count_parameters
from sepvit_edge.pipeline.lowering import lowering_job, quantization_for

OURS = "SepViT-T"
CALIBRATION_IMAGES = 4


@dataclass(frozen=True)
class Peer:
    """A network of timm.

    Attributes
    ----------
    name : str
        timm's name.
    image_size : int
        Side of its input.
    top1 : float
        Published top-1 on ImageNet-1K, trained on that alone.
    attention : bool
        Whether NNCF should treat it as a transformer.
    note : str
        What to know of the figure.
    """

    name: str
    image_size: int
    top1: float
    attention: bool = True
    note: str = ""


PEERS = {
    OURS: Peer("", 224, 82.7),
    "Swin-T": Peer("swin_tiny_patch4_window7_224", 224, 81.3),
    "ConvNeXt-T": Peer("convnext_tiny", 224, 82.1, attention=False),
    "Next-ViT-S": Peer("nextvit_small", 224, 82.5),
    "FastViT-SA24": Peer("fastvit_sa24", 256, 82.6),
    "MobileNetV4-Conv-L": Peer("mobilenetv4_conv_large", 384, 82.9, attention=False),
    "EfficientFormerV2-L": Peer("efficientformerv2_l", 224, 83.3, note="distilled"),
}


def _network(name: str) -> Any:
    """Make a peer as it is deployed: branches that only training needs are merged."""
    torch.manual_seed(0)
    return reparameterize_model(timm.create_model(PEERS[name].name, exportable=True).eval())


def size_of(name: str) -> dict[str, int]:
    """Count parameters and multiply-accumulates."""
    size = PEERS[name].image_size
    model = random_model("t", 1000, size) if name == OURS else _network(name)
    macs = module_macs(model, torch.zeros(1, 3, size, size))
    return {"parameters": count_parameters(model), "macs": macs}


def model_file(name: str, runtime: str, precision: str, folder: Path) -> Any:
    """Return a model's file, exported unless the folder has it."""
    size = PEERS[name].image_size
    place, unfinished = folder / f"{name}-{runtime}-{precision}", folder / "unfinished"
    if not place.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        print(f"exporting {place.name}", flush=True)
        (export_ours if name == OURS else export_peer)(name, runtime, precision, unfinished)
        unfinished.rename(place)
    if name != OURS:
        return ModelFile(runtime, place, (1, 3, size, size))
    recipe = find_recipe(runtime, precision)
    example = find_form(recipe.edge.form).pixels.example(1, size, size)
    dtype = str(example.dtype).removeprefix("torch.")
    return ModelFile(runtime, place, tuple(example.shape), dtype, recipe.options)


def export_ours(name: str, runtime: str, precision: str, folder: Path) -> None:
    """Export SepViT-T by the shipped recipe."""
    few = QuantizationOptions(calibration_images=CALIBRATION_IMAGES)
    recipe = find_recipe(runtime, precision).model_copy(update={"quantization": few})
    model = random_model("t", 1000, PEERS[name].image_size)
    quantization = quantization_for(model, recipe) if precision == "int8" else None
    with torch.no_grad():
        edge = EdgeModel(model, 1, find_form(recipe.edge.form))
        lower(lowering_job(model, edge, recipe, quantization), folder)


def export_peer(name: str, runtime: str, precision: str, folder: Path) -> None:
    """Export a peer by the runtime's exporter, and quantise it by the usual tool."""
    size = PEERS[name].image_size
    images = torch.randn(CALIBRATION_IMAGES, 3, size, size)
    export_naive(runtime, _network(name), images[:1], folder)
    if precision == "int8":
        quantize = {"openvino": _quantize_openvino, "onnxruntime": _quantize_onnxruntime}[runtime]
        quantize(name, images.numpy(), folder)


def _quantize_openvino(name: str, images: Any, folder: Path) -> None:
    import nncf
    import openvino as ov

    from sepvit_edge.backends.openvino import MODEL

    nncf.set_log_level(logging.ERROR)
    model = ov.Core().read_model(folder / MODEL)
    kind = nncf.ModelType.TRANSFORMER if PEERS[name].attention else None
    data = nncf.Dataset([image[None] for image in images])
    quantized = nncf.quantize(model, data, model_type=kind, subset_size=len(images))
    ov.save_model(quantized, folder / "int8.xml", compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        (folder / f"int8{suffix}").replace((folder / MODEL).with_suffix(suffix))


def _quantize_onnxruntime(name: str, images: Any, folder: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from sepvit_edge.backends.onnxruntime import MODEL

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = list(images)

        def get_next(self) -> Any:
            return {session_input: self.left.pop()[None]} if self.left else None

    path, prepared, done = folder / MODEL, folder / "prepared.onnx", folder / "int8.onnx"
    session_input = onnx.load(path, load_external_data=False).graph.input[0].name
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, done, Images(), per_channel=True, **types)
    for file in folder.iterdir():
        if file != done:
            file.unlink()
    done.replace(path)
