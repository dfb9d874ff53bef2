"""Keep the first convolution's weights out of float16's subnormal range.

1 / (255 std) is folded into those weights, so that float16 can write every eighth of a random
SepViT-T's only as a subnormal number, which a unit may take for zero. If one does, SepViT-T has
35 dB without this and 59 dB with it (Apple publishes nothing; Qualcomm's emulation does not).

So a factor moves from the convolution's weights to its input: the weights times `UP`, the input
times `DOWN`. Both are powers of two, and nothing changes but exponents. `coreml` and `onnx_file`
do it, each to its own kind of graph.
"""

from __future__ import annotations

import numpy as np

UP, DOWN = np.float32(2**8), np.float32(2**-8)
INPUT_NAME = "input__mul"  # of the operation that scales the input: it belongs to the part "input"
