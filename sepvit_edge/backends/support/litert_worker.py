"""Runs in the environment of litert-torch: converts a traced program to a LiteRT model file.

    python litert_worker.py FOLDER

FOLDER has job.json and program.pt2; model.tflite is written there. The answer is a line of JSON on
standard output.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

# The toolchain writes to standard output, from C++ too; the answer takes a separate descriptor.
_caller = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def convert(folder: Path, precision: str) -> Any:
    """Convert the program; its quantised layers compute in int8, the rest in float32."""
    import litert_torch
    import torch
    from litert_torch.quantize.pt2e_quantizer import (
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import QuantConfig

    program = torch.export.load(folder / "program.pt2")
    example = tuple(
        node.meta["val"]
        for node in program.graph.nodes
        if node.name in program.graph_signature.user_inputs
    )
    zeros = tuple(torch.zeros(value.shape, dtype=value.dtype) for value in example)
    config = None
    if precision == "int8":
        # Nothing is quantised by it; it says that the program is, with static scales.
        static = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
        config = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(static))
    return litert_torch.convert(program.module(), zeros, quant_config=config)


def store_half(folder: Path) -> None:
    """Store the weights of model.tflite as float16; the arithmetic stays in float32."""
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.qtyping import (
        ComputePrecision,
        OpQuantizationConfig,
        TensorDataType,
        TensorQuantizationConfig,
        TFLOperationName,
    )

    model = folder / "model.tflite"
    half = TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT)
    config = OpQuantizationConfig(
        weight_tensor_config=half,
        compute_precision=ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    tool = quantizer.Quantizer(str(model))
    tool.update_quantization_recipe(
        regex=".*",
        operation_name=TFLOperationName.ALL_SUPPORTED,
        op_config=config,
        algorithm_key="float_casting",
    )
    tool.quantize().export_model(str(model), overwrite=True)


def main() -> None:
    """Run as a command."""
    folder = Path(sys.argv[1])
    try:
        precision = json.loads((folder / "job.json").read_text())["precision"]
        convert(folder, precision).export(str(folder / "model.tflite"))
        if precision == "fp16":
            store_half(folder)
        facts: dict[str, Any] = {"done": True}
    except Exception as error:  # the toolchain raises errors of any kind
        traceback.print_exc()
        facts = {"refused": f"{type(error).__name__}: {error}"}
    print(json.dumps(facts), file=_caller, flush=True)


if __name__ == "__main__":
    main()
