"""Int8 weights as some converters want them: quantised in the graph, not stored as integers."""

from __future__ import annotations

import torch
from torch.fx import GraphModule


def unfold_weights(module: GraphModule) -> None:
    """Quantise float weights in the graph, in place of integers that are dequantised; exact.

    Converters that look for a quantisation and a dequantisation together make the same integers of
    them again.
    """
    ops = torch.ops.quantized_decomposed
    for node in module.graph.nodes:
        if node.target is not ops.dequantize_per_channel.default:
            continue
        stored, scales, zero_points, *limits = node.args
        weight = module.get_buffer(stored.target)
        shape = [-1] + [1] * (weight.ndim - 1)
        value = weight.float() * module.get_buffer(scales.target).reshape(shape)
        module.register_buffer(stored.target.replace(".", "_") + "_float", value)
        with module.graph.inserting_before(node):
            attribute = module.graph.get_attr(stored.target.replace(".", "_") + "_float")
            attribute.meta["val"] = value
            arguments = (attribute, scales, zero_points, *limits)
            quantize = module.graph.call_function(ops.quantize_per_channel.default, arguments)
        quantize.meta["val"] = weight
        node.replace_input_with(stored, quantize)
    module.graph.eliminate_dead_code()
    module.recompile()
