"""Changes to a LiteRT model file that its converter has made."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ai_edge_litert.schema_py_generated import BuiltinOperator, OperatorT, TensorType
from ai_edge_litert.tools.flatbuffer_utils import read_model, write_model


def compute_gelus_in_float(file: Path) -> None:
    """Dequantise in front of each GELU of integers, and quantise behind it.

    The converter takes a dequantisation, GELU and quantisation together for a GELU of integers,
    which the XNNPACK delegate does not take. The integers that come out are the same: those of a
    table of what the float GELU gives.
    """
    model = read_model(str(file))
    (graph,) = model.subgraphs
    codes = {code.builtinCode: i for i, code in enumerate(model.operatorCodes)}

    def in_float(tensor: int) -> int:
        made = copy.copy(graph.tensors[tensor])
        made.type, made.quantization = TensorType.FLOAT32, None
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def conversion(kind: int, source: int, result: int) -> OperatorT:
        made = OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = codes[kind], [source], [result]
        return made

    operators: list[Any] = []
    for operator in graph.operators:
        (source, *_), (result, *_) = operator.inputs, operator.outputs
        is_gelu = operator.opcodeIndex == codes.get(BuiltinOperator.GELU)
        if not is_gelu or graph.tensors[source].type != TensorType.INT8:
            operators.append(operator)
            continue
        operator.inputs, operator.outputs = [in_float(source)], [in_float(result)]
        operators += [
            conversion(BuiltinOperator.DEQUANTIZE, source, operator.inputs[0]),
            operator,
            conversion(BuiltinOperator.QUANTIZE, operator.outputs[0], result),
        ]
    graph.operators = operators
    write_model(model, str(file))
