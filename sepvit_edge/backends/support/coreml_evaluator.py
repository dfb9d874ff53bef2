"""Evaluate a Core ML package without Core ML: from the bytes on disk, operation by operation.

It reads the two files that a device reads, model.mlmodel (a protobuf) and weight.bin, so it checks
the conversion and the files, not the converter's idea of them.

The model of precision. A value that the program declares as float16 is rounded to float16 when its
operation is complete; inside an operation (the sums of a product, of a softmax, of a LayerNorm)
everything is float32. Apple does not publish the precision of its units' accumulators; all of them
round once per operation. A float32 program is evaluated in float32 throughout.

It covers the operations that the four variants use, in the ways they use them; anything else is
rejected by name. Their definitions: the MIL reference of coremltools
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from coremltools.proto import MIL_pb2, Model_pb2
from google.protobuf.message import DecodeError
from torch import Tensor

from ...errors import SepViTError
from ..interface import OpTiming, Session

SPECIFICATION = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")

_DTYPES: dict[int, type[np.generic]] = {
    MIL_pb2.FLOAT16: np.float16,
    MIL_pb2.FLOAT32: np.float32,
    MIL_pb2.INT8: np.int8,
    MIL_pb2.INT32: np.int32,
    MIL_pb2.BOOL: np.bool_,
}
# weight.bin, "blob v2" (MILBlob/Blob/StorageFormat.hpp of coremltools): 64 bytes of metadata before
# each blob: sentinel, type, bytes, offset of the data.
_METADATA = struct.Struct("<IIQQ")
_SENTINEL = 0xDEADBEEF
_BLOB_DTYPES: dict[int, type[np.generic]] = {1: np.float16, 2: np.float32, 4: np.int8}


@dataclass(frozen=True)
class Operation:
    """The parts of a program's operation that the evaluator uses.

    Attributes
    ----------
    kind, name : str
        Type, and the name that the converter gave it.
    inputs : dict
        Parameter -> name of a value, list of names, or the value itself where it is a literal.
    outputs : list of tuple
        Name, data type (of `MIL_pb2`) and shape.
    """

    kind: str
    name: str
    inputs: dict[str, Any]
    outputs: list[tuple[str, int, tuple[int, ...]]]


class EvaluatorSession(Session):
    """An ML program read from disk; see `interface.Session`.

    Parameters
    ----------
    package : Path
        The ``.mlpackage`` folder.
    threads : int, optional
        Torch's threads. Default: one, which gives the same sums on every machine.

    Raises
    ------
    SepViTError
        If a file is missing or damaged.
    """

    def __init__(self, package: Path, threads: int | None = None) -> None:
        self._threads = threads or 1
        self.operations: list[Operation] = []
        self._constants: dict[str, Any] = {}
        try:
            weights = package / WEIGHTS  # not written where no constant is large
            self._weights = weights.read_bytes() if weights.exists() else b""
            model = Model_pb2.Model.FromString((package / SPECIFICATION).read_bytes())
            function = model.mlProgram.functions["main"]
            block = function.block_specializations[function.opset]
            for operation in block.operations:
                if operation.type == "const":
                    value = self._value(operation.attributes["val"])
                    self._constants[operation.outputs[0].name] = value
                elif operation.type.startswith("constexpr_"):
                    self._constants[operation.outputs[0].name] = self._unpacked(operation)
                else:
                    self.operations.append(self._operation(operation))
            self.input: str = function.inputs[0].name
        except (OSError, DecodeError, struct.error, ValueError, IndexError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SepViTError(f"{package} is damaged ({reason}); export again") from None
        del self._weights  # copied where needed
        self.all_outputs = list(block.outputs)
        # Label and probabilities are outputs too, but not arrays.
        description = model.description.output
        self.outputs = [o.name for o in description if o.type.HasField("multiArrayType")]
        self._last_use = {
            name: index
            for index, operation in enumerate(self.operations)
            for name in _names(operation)
        }

    def _operation(self, operation: Any) -> Operation:
        inputs: dict[str, Any] = {}
        for parameter, argument in operation.inputs.items():
            bound = [
                self._value(binding.value) if binding.HasField("value") else _Name(binding.name)
                for binding in argument.arguments
            ]
            # The one variadic parameter is concat's.
            inputs[parameter] = bound if parameter == "values" else bound[0]
        outputs = []
        for output in operation.outputs:
            tensor = output.type.tensorType
            shape = tuple(int(side.constant.size) for side in tensor.dimensions)
            outputs.append((output.name, tensor.dataType, shape))
        name = operation.attributes["name"].immediateValue.tensor.strings.values[0]
        return Operation(operation.type, name, inputs, outputs)

    def _unpacked(self, operation: Any) -> Any:
        """Unpack a stored weight, as Core ML does when it loads a program."""
        stored = {
            parameter: self._value(value)
            for parameter, value in operation.attributes.items()
            if parameter != "name"
        }
        name = operation.outputs[0].name
        (weight,) = self._evaluate(Operation(operation.type, name, stored, []), {})
        half = operation.outputs[0].type.tensorType.dataType == MIL_pb2.FLOAT16
        return weight.half().float() if half else weight

    def _value(self, value: Any) -> Any:
        """Decode a constant: arrays of floats and bytes as tensors, everything else as Python's."""
        if value.immediateValue.HasField("list"):
            return [self._value(item) for item in value.immediateValue.list.values]
        tensor, immediate = value.type.tensorType, value.immediateValue.tensor
        if tensor.dataType == MIL_pb2.STRING:
            return immediate.strings.values[0]
        if tensor.dataType not in _DTYPES:
            name = MIL_pb2.DataType.Name(tensor.dataType)
            raise SepViTError(f"Core ML constants of type {name} can be evaluated on macOS only")
        dtype = _DTYPES[tensor.dataType]
        if value.HasField("blobFileValue"):
            data = self._blob(value.blobFileValue.offset, dtype)
        elif immediate.HasField("bytes"):
            data = np.frombuffer(immediate.bytes.values, dtype)
        else:
            data = np.array(getattr(immediate, immediate.WhichOneof("value")).values, dtype)
        data = data.reshape([int(side.constant.size) for side in tensor.dimensions])
        # Every float16 is a float32; other integers and truth values are parameters, never data.
        if issubclass(data.dtype.type, np.floating):
            return torch.from_numpy(data.astype(np.float32))
        if data.dtype == np.int8:
            return torch.from_numpy(data.copy())
        return data.tolist()

    def _blob(self, offset: int, dtype: type[np.generic]) -> np.ndarray:
        sentinel, kind, size, start = _METADATA.unpack_from(self._weights, offset)
        if sentinel != _SENTINEL or start + size > len(self._weights):
            raise ValueError(f"no weights at byte {offset} of {WEIGHTS.name}")
        if _BLOB_DTYPES.get(kind) is not dtype:
            raise ValueError(f"the weights at byte {offset} are not {dtype.__name__}")
        return np.frombuffer(self._weights[start : start + size], dtype)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run one batch; returns the arrays among the outputs, as the file orders them."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            results = self.evaluate(pixels)
        finally:
            torch.set_num_threads(threads)
        return [results[name] for name in self.outputs]

    def profile(self, pixels: np.ndarray, runs: int) -> list[OpTiming]:
        """Refuse: the evaluator's times say nothing about a device."""
        raise SepViTError("Core ML runs on Apple's systems only: profile this package on a Mac")

    @torch.no_grad()
    def evaluate(self, pixels: np.ndarray) -> dict[str, Any]:
        """Evaluate every output.

        Parameters
        ----------
        pixels : numpy.ndarray
            float32, of the shape of the program's input.

        Returns
        -------
        dict
            Every output by its name: arrays, the label, the probabilities by label.

        Raises
        ------
        SepViTError
            If an operation, or a way to use it, is not covered; it is named.
        """
        values = {self.input: torch.from_numpy(np.asarray(pixels, np.float32))}
        for index, operation in enumerate(self.operations):
            results = self._evaluate(operation, values)
            for (name, dtype, shape), result in zip(operation.outputs, results, strict=True):
                if isinstance(result, Tensor):
                    if tuple(result.shape) != shape:
                        raise SepViTError(
                            f"{operation.kind} {operation.name} gives {tuple(result.shape)}, "
                            f"the Core ML program declares {shape}; export again"
                        )
                    if dtype == MIL_pb2.FLOAT16:
                        result = result.half().float()
                values[name] = result
            for name in _names(operation):
                if self._last_use[name] == index and name not in self.all_outputs:
                    values.pop(name, None)
        outputs = {name: values[name] for name in self.all_outputs}
        return {k: v.numpy() if isinstance(v, Tensor) else v for k, v in outputs.items()}

    def _evaluate(self, operation: Operation, values: dict[str, Any]) -> tuple[Any, ...]:
        if operation.kind not in OPERATIONS:
            raise SepViTError(
                f"the Core ML program has the operation {operation.kind} ({operation.name}), which "
                f"can be evaluated on macOS only (elsewhere: {', '.join(sorted(OPERATIONS))})"
            )

        def bound(value: Any) -> Any:
            if isinstance(value, _Name):
                return values[value] if value in values else self._constants[value]
            return value

        try:
            inputs = {
                parameter: [bound(v) for v in value] if parameter == "values" else bound(value)
                for parameter, value in operation.inputs.items()
            }
            result = OPERATIONS[operation.kind](**inputs)
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            raise SepViTError(
                f"the operation {operation.kind} ({operation.name}) of the Core ML program cannot "
                f"be evaluated here: {str(error).splitlines()[0]}"
            ) from None
        return result if isinstance(result, tuple) else (result,)


class _Name(str):
    """The name of a value, as opposed to a literal string."""


def _names(operation: Operation) -> list[str]:
    """Values that an operation reads."""
    inputs = operation.inputs.values()
    flat = [v for value in inputs for v in (value if isinstance(value, list) else [value])]
    return [v for v in flat if isinstance(v, _Name)]


def _only(parameter: str, value: object, supported: object) -> None:
    if value != supported:
        raise ValueError(f"{parameter} is {value!r}, only {supported!r} is covered")


# The operations, with the parameters that the variants use.


def _cast(x: Tensor, dtype: str) -> Tensor:
    if dtype not in ("fp16", "fp32"):
        raise ValueError(f"a cast to {dtype} is not covered")
    return x  # the declared type of the output says the rest


def _concat(values: list[Tensor], axis: int, interleave: bool = False) -> Tensor:
    _only("interleave", interleave, False)
    return torch.cat(values, axis)


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional; `pad` is (top, bottom, left, right) and counts with "custom" alone."""
    if pad_type == "custom":
        top, bottom, left, right = pad or (0, 0, 0, 0)
        x = F.pad(x, (left, right, top, bottom))
    else:
        _only("pad_type", pad_type, "valid")
    return F.conv2d(x, weight, bias, strides or 1, 0, dilations or 1, groups)


def _gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    _only("mode", mode, "EXACT")
    return F.gelu(x)


def _layer_norm(
    x: Tensor,
    axes: list[int] | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    axes = sorted(axis % x.ndim for axis in (range(x.ndim) if axes is None else axes))
    _only("axes", axes, list(range(x.ndim - len(axes), x.ndim)))
    return F.layer_norm(x, x.shape[axes[0] :], gamma, beta, float(epsilon))


def _constexpr_affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    return _dequantize(quantized_data, scale, zero_point, axis)


def _dequantize(
    input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    scale, zero = _along(input, scale, axis), 0 if zero_point is None else zero_point
    return (input.float() - _along(input, torch.as_tensor(zero), axis)) * scale


def _quantize(
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """To int8; what is outside its range is cut off, halves go to the even neighbour."""
    _only("output_dtype", output_dtype, "int8")
    _only("axis", axis, None)
    zero = 0 if zero_point is None else zero_point
    return (torch.round(input / scale) + zero).clamp(-128, 127)


def _along(x: Tensor, values: Tensor, axis: int | None) -> Tensor:
    """Shape (n,) values so that they stand along an axis of x; scalars stay."""
    if values.ndim == 0:
        return values.float()
    shape = [1] * x.ndim
    shape[0 if axis is None else axis] = -1
    return values.float().reshape(shape)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    x = x.transpose(-1, -2) if transpose_x else x
    return x @ (y.transpose(-1, -2) if transpose_y else y)


def _reduce_mean(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    return x.mean(list(range(x.ndim)) if axes is None else axes, keep_dims)


def _reshape(x: Tensor, shape: list[int]) -> Tensor:
    if 0 in shape:
        raise ValueError("a 0 in the shape is not covered")
    return x.reshape(shape)


def _slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """As numpy's ``x[begin:end:stride, ...]``; a mask leaves its bound open, or picks one index."""
    no = [False] * x.ndim
    index: list[slice | int] = []
    for axis in range(x.ndim):
        if (squeeze_mask or no)[axis]:
            index.append(begin[axis])
            continue
        first = None if (begin_mask or no)[axis] else begin[axis]
        last = None if (end_mask or no)[axis] else end[axis]
        index.append(slice(first, last, stride[axis] if stride else 1))
    return x[tuple(index)]


def _softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Centres of pixels aligned, which is the default of `half_pixel_centers` here."""
    _only("align_corners", align_corners, False)
    if half_pixel_centers is not None:
        _only("half_pixel_centers", half_pixel_centers, True)
    factors = float(scale_factor_height), float(scale_factor_width)
    return F.interpolate(x, scale_factor=factors, mode="bilinear", align_corners=False)


def _classify(probabilities: Tensor, classes: list[str]) -> tuple[str, dict[str, float]]:
    flat = probabilities.flatten().tolist()
    if len(flat) != len(classes):
        raise ValueError(f"{len(flat)} probabilities do not fit {len(classes)} classes")
    # Core ML names the class of the largest probability; a tie goes to the first here.
    label = classes[max(range(len(flat)), key=flat.__getitem__)]
    return label, dict(zip(classes, flat, strict=True))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "cast": _cast,
    "classify": _classify,
    "concat": _concat,
    "constexpr_affine_dequantize": _constexpr_affine_dequantize,
    "conv": _conv,
    "dequantize": _dequantize,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "mul": lambda x, y: x * y,
    "quantize": _quantize,
    "reduce_mean": _reduce_mean,
    "relu": lambda x: F.relu(x),
    "reshape": _reshape,
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "slice_by_index": _slice_by_index,
    "softmax": _softmax,
    "sub": lambda x, y: x - y,
    "upsample_bilinear": _upsample_bilinear,
    "transpose": lambda x, perm: x.permute(perm),
}
