"""What a manifest says of a model, its input and its outputs."""

from __future__ import annotations

from dataclasses import asdict

from ..model.create import ReferenceModel
from ..model.dense import HEADS, DenseConfig, DenseModel
from ..model.dense import count_macs as count_dense_macs
from ..model.edge import EdgeModel
from ..model.edge.dense import RegionModel
from ..model.reference import count_macs, count_parameters
from ..model.variants import ModelConfig, Preprocessing, find_variant
from ..package.manifest import (
    MEANINGS,
    InputFacts,
    Manifest,
    ModelFacts,
    OutputFacts,
    RegionInput,
    Task,
)
from ..package.postprocessing import (
    DetectionRule,
    PostprocessingRule,
    SegmentationRule,
    TwoStageRule,
)

_RULES = {
    "segmentation": SegmentationRule,
    "detection": DetectionRule,
    "instance-segmentation": TwoStageRule,
}


def task_of(model: ReferenceModel) -> Task:
    """Return what a model answers."""
    return model.config.answer if isinstance(model, DenseModel) else "classification"


def model_facts(model: ReferenceModel, edge: EdgeModel) -> ModelFacts:
    """Describe a network."""
    config, name = model.config, find_variant(model.config.variant).name
    if not isinstance(model, DenseModel):
        return ModelFacts(
            variant=config.variant,
            name=name,
            form=edge.form.name,
            num_classes=config.num_classes,
            image_size=model.config.image_size,
            parameters=count_parameters(model),
            macs=count_macs(model),
        )
    dense = model.config
    return ModelFacts(
        variant=dense.variant,
        name=f"{name} with {HEADS[dense.head].name}",
        form=edge.form.name,
        num_classes=dense.num_classes,
        image_size=max(dense.input_size),
        parameters=count_parameters(model),
        macs=count_dense_macs(model),
        head=dense.head,
        channels=dense.channels,
        input_size=dense.input_size,
        window=dense.window,
        window_size=dense.window_side,
    )


def input_facts(model: ReferenceModel, edge: EdgeModel) -> InputFacts:
    """Describe the input tensor, and how an image becomes it."""
    rule, pixels = model.config.preprocessing, edge.form.pixels
    if isinstance(model, DenseModel):
        shorter = size = max(model.config.input_size)
    else:
        size = model.config.image_size
        shorter = rule.resize_side(size)
    return InputFacts(
        name="pixels",
        shape=list(edge.example_input().shape),
        dtype=pixels.dtype,
        layout=pixels.layout,
        resize_shorter_side=shorter,
        crop_size=size,
        **asdict(rule),
        fit="whole-top-left" if isinstance(model, DenseModel) else None,
    )


def output_facts(model: ReferenceModel, edge: EdgeModel) -> tuple[OutputFacts, ...]:
    """Describe the outputs, taps left out."""
    names, meanings, shapes = edge.output_names, MEANINGS[task_of(model)], edge.output_shapes()
    return tuple(
        OutputFacts(name=name, meaning=meaning, shape=list(shape))
        for name, meaning, shape in zip(names, meanings, shapes, strict=True)
    )


def region_facts(graph: RegionModel) -> tuple[RegionInput, tuple[OutputFacts, ...]]:
    """Describe input and outputs of a graph that looks at regions; its outputs' names say all."""
    shape = list(graph.example_input().shape)
    return RegionInput(name="regions", meaning="region_features", shape=shape), tuple(
        OutputFacts(name=name, meaning=name, shape=list(sides))
        for name, sides in zip(graph.output_names, graph.output_shapes(), strict=True)
    )


def config_of(manifest: Manifest, labels: tuple[str, ...]) -> ModelConfig | DenseConfig:
    """Return the configuration that a package was exported with.

    Raises
    ------
    SepViTError
        If it is of a version of sepvit-edge with other configurations.
    """
    model, rule = manifest.model, manifest.input
    preprocessing = Preprocessing(rule.crop, rule.mean, rule.std)
    if manifest.task == "classification":
        return ModelConfig(
            model.variant, model.num_classes, model.image_size, preprocessing, labels
        )
    return DenseConfig(
        "segmentation" if manifest.task == "segmentation" else "detection",
        model.head or "",
        model.variant,
        model.num_classes,
        model.input_size or (0, 0),
        model.window,  # type: ignore[arg-type]
        model.channels or 0,
        preprocessing,
        labels,
    )


def postprocessing_of(task: Task) -> PostprocessingRule | None:
    """Return how the outputs of a task become its answer; None for classification."""
    if task == "classification":
        return None
    return _RULES[task]()
