"""Tiny packages for the apps' tests, whose arithmetic is exact in float32.

Every runtime gives the same bits, so that a difference is a fault of the app.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file

from sepvit_edge.data.preprocess import fit_image
from sepvit_edge.package.folder import list_files, write_manifest
from sepvit_edge.package.manifest import (
    GOLDEN,
    LABELS,
    SCHEMA_VERSION,
    InputFacts,
    Manifest,
    ModelFacts,
    OutputFacts,
    PlacedOps,
    Placement,
    RuntimeFacts,
    SourceFacts,
)
from sepvit_edge.package.postprocessing import DetectionRule, SegmentationRule
from sepvit_edge.pipeline.dense import kept
from sepvit_edge.postprocess.detection import detect
from sepvit_edge.postprocess.segmentation import class_map

SIZE = (32, 48)  # height and width of a dense package's input
_MEAN = (0.5, 0.25, 0.75)
_DETECTION = DetectionRule(
    strides=(8,), ratios=(1.0, 2.0), scales=(2.0,), score_threshold=0.3, max_detections=20
)


def write_model(
    folder: Path,
    name: str,
    nodes: Sequence[NodeProto],
    outputs: dict[str, list[int]],
    weights: dict[str, np.ndarray],
    shape: list[int],
) -> onnxruntime.InferenceSession:
    """Write model.onnx for every ONNX Runtime since 1.17, and load it."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)],
        [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, sides)
            for output, sides in outputs.items()
        ],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    (folder / "model.onnx").write_bytes(data)
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def write_tiny(
    folder: Path,
    nodes: Sequence[NodeProto],
    weights: dict[str, np.ndarray],
    model: ModelFacts,
    facts: InputFacts,
    outputs: list[OutputFacts],
    **others: Any,
) -> None:
    """Write the manifest of a package whose other files are there; `others` are its own keys."""
    joined = b"".join(value.tobytes() for value in weights.values())
    group = PlacedOps(
        where="CPUExecutionProvider",
        precision="float",
        accelerated=True,
        ops=len(nodes),
        macs_share=1.0,
        kinds={node.op_type: 1 for node in nodes},
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        digest="0" * 64,
        model=model,
        input=facts,
        outputs=outputs,
        target="onnxruntime",
        precision="fp32",
        quantization=None,
        runtime=RuntimeFacts(
            name="onnxruntime", version="1.31.1", minimum="1.17", below="2", options={}
        ),
        versions={},
        recipe={"target": "onnxruntime", "precision": "fp32"},
        source=SourceFacts(
            weights_sha256=hashlib.sha256(joined).hexdigest(),
            file_sha256=None,
            file_size=None,
            trained_on=None,
        ),
        files=list_files(folder),
        placement=Placement(device="CPU", placed=[group]),
        parity=None,
        **others,
    )
    write_manifest(manifest, folder)


def segmentation_package(folder: Path, images: Sequence[Image.Image]) -> None:
    """Write a package that tells which colour is the strongest in each 4 x 4 pixels."""
    weights = {
        "weight": np.array([[4, -2, -2], [-2, 4, -2], [-2, -2, 4], [1, 1, 1]], np.float32) / 64,
        "bias": np.array([0, 0, 0, -4], np.float32),
    }
    weights["weight"] = weights["weight"][..., None, None]
    nodes = [*_means(4), helper.make_node("Conv", ["means", "weight", "bias"], ["logits"])]
    shape = [1, 4, SIZE[0] // 4, SIZE[1] // 4]
    session = write_model(folder, "colours", nodes, {"logits": shape}, weights, [1, *SIZE, 3])
    rule = SegmentationRule()
    tensors, found, _ = _golden(session, images)
    maps = np.stack([class_map(logits, rule) for logits in found[0]]).astype(np.uint8)
    _write_dense(
        folder,
        tensors | _both({"logits": kept(found[0]), "class_map": maps}),
        nodes,
        weights,
        ("red", "grün", "blue", "grey"),
        "semantic-fpn",
        [OutputFacts(name="logits", meaning="class_map_logits", shape=shape)],
        rule,
    )


def detection_package(folder: Path, images: Sequence[Image.Image]) -> None:
    """Write a package that finds strong colours, each 8 x 8 pixels with two anchors."""
    weights = {
        "weight": np.array([[4, -2, -2], [-2, 4, -2], [-2, -2, 4]] * 2, np.float32) / 64,
        "bias": np.array([-3, -3, -3, -4, -4, -4], np.float32),
        "delta_weight": np.array(
            [
                [1, 0, 0],
                [0, 1, 0],
                [1, 1, 0],
                [0, 1, 1],
                [0, 0, 1],
                [1, 0, 0],
                [1, 0, 1],
                [0, 1, 0],
            ],
            np.float32,
        )
        / 512,
        "delta_bias": np.array([-0.25, -0.25, -0.5, -0.5, 0, -0.25, -0.25, 0], np.float32),
    }
    for name in ("weight", "delta_weight"):
        weights[name] = weights[name][..., None, None]
    weights["classes_shape"] = np.array([1, -1, 3], np.int64)
    weights["deltas_shape"] = np.array([1, -1, 4], np.int64)
    nodes = _means(8)
    for name, prefix in (("classes", ""), ("deltas", "delta_")):
        parts = ["means", f"{prefix}weight", f"{prefix}bias"]
        nodes += [
            helper.make_node("Conv", parts, [f"{name}_map"]),
            helper.make_node("Transpose", [f"{name}_map"], [f"{name}_last"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_last", f"{name}_shape"], [name]),
        ]
    anchors = 2 * (SIZE[0] // 8) * (SIZE[1] // 8)
    shapes = {"classes": [1, anchors, 3], "deltas": [1, anchors, 4]}
    session = write_model(folder, "spots", nodes, shapes, weights, [1, *SIZE, 3])
    tensors, found, contents = _golden(session, images)
    answers = {name: kept(output) for name, output in zip(shapes, found, strict=True)}
    for i, content in enumerate(contents):
        boxes = detect(found[0][i], found[1][i], _DETECTION, SIZE, content)
        answers[f"boxes.{i}"], answers[f"scores.{i}"] = boxes.boxes, boxes.scores
        answers[f"classes.{i}"] = boxes.classes.astype(np.float32)
    meanings = ("box_class_logits", "box_deltas")
    outputs = [
        OutputFacts(name=name, meaning=meaning, shape=shape)
        for (name, shape), meaning in zip(shapes.items(), meanings, strict=True)
    ]
    labels = ("red", "grün", "blue")
    _write_dense(
        folder, tensors | _both(answers), nodes, weights, labels, "retinanet", outputs, _DETECTION
    )


def _means(side: int) -> list[NodeProto]:
    """Nodes from pixels to the mean colours of squares, (1, 3, H / side, W / side)."""
    return [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["means"], kernel_shape=[side] * 2, strides=[side] * 2
        ),
    ]


def _golden(
    session: onnxruntime.InferenceSession, images: Sequence[Image.Image]
) -> tuple[dict[str, np.ndarray], list[np.ndarray], list[tuple[int, int]]]:
    """Return images and pixels as golden vectors, the outputs (N, ...), and the contents."""
    fitted = [fit_image(image, _MEAN, SIZE) for image in images]
    tensors = {f"image.{i}": np.asarray(image) for i, image in enumerate(images)}
    tensors["pixels"] = np.stack([pixels for pixels, _ in fitted])
    runs = [session.run(None, {"pixels": pixels[None]}) for pixels, _ in fitted]
    outputs = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
    return tensors, outputs, [fit.content for _, fit in fitted]


def _both(answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        f"{whose}.{name}": value
        for whose in ("reference", "package")
        for name, value in answers.items()
    }


def _write_dense(
    folder: Path,
    tensors: dict[str, np.ndarray],
    nodes: Sequence[NodeProto],
    weights: dict[str, np.ndarray],
    labels: Sequence[str],
    head: str,
    outputs: list[OutputFacts],
    rule: SegmentationRule | DetectionRule,
) -> None:
    save_file(tensors, folder / GOLDEN)
    (folder / GOLDEN).chmod(0o644)
    (folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")
    side = max(SIZE)
    write_tiny(
        folder,
        nodes,
        weights,
        ModelFacts(
            variant="tiny",
            name="Colours",
            form="mean",
            num_classes=len(labels),
            image_size=side,
            parameters=sum(value.size for value in weights.values()),
            macs=1000,
            head=head,
            channels=3,
            input_size=SIZE,
            window="paper",
            window_size=7,
        ),
        InputFacts(
            name="pixels",
            shape=[1, *SIZE, 3],
            dtype="uint8",
            layout="NHWC",
            resize_shorter_side=side,
            crop_size=side,
            crop=1.0,
            mean=_MEAN,
            std=(0.5, 0.5, 0.5),
            fit="whole-top-left",
        ),
        outputs,
        task=rule.task,
        postprocessing=rule,
    )
