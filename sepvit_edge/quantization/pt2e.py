"""The scheme as a torchao quantizer, for use in torch.export's own quantisation flow.

`prepare_pt2e` or `prepare_qat_pt2e` with this quantizer, then `convert_pt2e`, makes the graph that
`apply_quantization` makes, from the same scales bit for bit (a test compares them). Exports
do not need that: their graph keeps its names and is traced once.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import (
    FusedMovingAvgObsFakeQuantize,
    HistogramObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import (
    DerivedQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

from ..model.quantized import WEIGHT_LIMIT
from .scheme import ACTIVATION_RANGE, BIAS_RANGE, CLASSIFIER, FLOAT_LAYERS

_ATEN = torch.ops.aten
_LAYERS = (_ATEN.linear.default, _ATEN.conv2d.default)


class SepViTQuantizer(Quantizer):
    """Annotates linears and convolutions of an exported edge model.

    Parameters
    ----------
    keep_float : sequence of str
        Patterns of layers to leave in float besides the scheme's own, as ``stages.0.*``.
    qat : bool
        Insert trainable fake quantisation, for `prepare_qat_pt2e`.
    activation : callable, optional
        Makes observers of activations in place of histograms.
    """

    def __init__(
        self, keep_float: Sequence[str] = (), qat: bool = False, activation: Any = None
    ) -> None:
        super().__init__()
        self._keep_float = (*FLOAT_LAYERS, *keep_float)
        low, high = ACTIVATION_RANGE
        weight: Any = PerChannelMinMaxObserver.with_args(eps=1e-12)
        if qat:
            fake = FusedMovingAvgObsFakeQuantize.with_args
            activation = activation or fake(observer=MovingAverageMinMaxObserver, eps=1e-9)
            weight = fake(observer=MovingAveragePerChannelMinMaxObserver, eps=1e-12)
        self._activation = QuantizationSpec(
            dtype=torch.int8,
            quant_min=low,
            quant_max=high,
            qscheme=torch.per_tensor_symmetric,
            observer_or_fake_quant_ctr=activation or HistogramObserver.with_args(eps=1e-9),
        )
        self._weight = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-WEIGHT_LIMIT,
            quant_max=WEIGHT_LIMIT,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=weight,
        )

    def _bias(self, node: Node) -> DerivedQuantizationSpec:
        """Derive the scale of a layer's accumulators."""
        x, weight = node.args[0], node.args[1]
        assert isinstance(x, Node) and isinstance(weight, Node)
        low, high = BIAS_RANGE
        return DerivedQuantizationSpec(
            derived_from=[(x, node), (weight, node)],
            derive_qparams_fn=_accumulator_scale,
            dtype=torch.int32,
            quant_min=low,
            quant_max=high,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark what is to be quantised, in place."""
        for node in model.graph.nodes:
            name = layer_of(node)
            if name is None or any(fnmatch.fnmatch(name, p) for p in self._keep_float):
                continue
            inputs: dict[Node, Any] = {node.args[1]: self._weight}
            if name != CLASSIFIER:
                inputs |= {node.args[0]: self._activation, node.args[2]: self._bias(node)}
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                input_qspec_map=inputs,
                output_qspec=None if name == CLASSIFIER else self._activation,
                _annotated=True,
            )
        return model

    def validate(self, model: GraphModule) -> None:
        """Accept every model: what is not annotated stays float."""


def _accumulator_scale(observers: list[Any]) -> tuple[Tensor, Tensor]:
    """Return scales and zero points of a bias, from the observers of input and weight."""
    (input_scale, _), (weight_scale, _) = (o.calculate_qparams() for o in observers)
    scale = weight_scale * input_scale
    return scale, torch.zeros_like(scale, dtype=torch.int32)


def layer_of(node: Node) -> str | None:
    """Return the name of the edge form's layer that a node computes; None for other operations.

    The means of the "linear" LayerNorm are linears without a module, so they are not layers.
    """
    if node.op != "call_function" or node.target not in _LAYERS:
        return None
    stack = list(node.meta["nn_module_stack"].values())
    path, kind = stack[-1]
    if not str(kind).endswith(("Linear", "Conv2d", "linear.Linear", "conv.Conv2d")):
        return None
    return str(path).removeprefix("L['self'].").replace("slice(None, None, None)", "")
