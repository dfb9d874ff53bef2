"""The reference on CUDA against the reference on the CPU, block by block.

Skipped without a GPU. The tolerances are bounds from the formats, for a network of depth 11 whose
errors add up: float32 has 24 bits (144 dB), TF32 multiplies with 11, float16 with 11, bfloat16 with
8 (about 6 dB a bit, and half of that is left for accumulation and depth).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from helpers import jittered, random_pixels

from sepvit_edge.metrics import sqnr_db
from sepvit_edge.model.logits import normalize
from sepvit_edge.pipeline.taps import reference_taps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


MODES: dict[str, tuple[bool, torch.dtype | None, float]] = {
    "fp32": (False, None, 95.0),
    "tf32": (True, None, 45.0),
    "fp16": (False, torch.float16, 45.0),
    "bf16": (False, torch.bfloat16, 28.0),
}


@pytest.mark.parametrize("variant", ["lite", "t", "s", "b"])
@pytest.mark.parametrize("mode", MODES)
def test_every_part_on_the_gpu_is_the_cpu_s(variant: str, mode: str) -> None:
    allowed, dtype, least = MODES[mode]
    model = jittered(variant, image_size=224)
    pixels = random_pixels(2, 224)
    expected = reference_taps(model, pixels)
    precision: AbstractContextManager[object] = nullcontext()
    if dtype is not None:
        precision = torch.autocast("cuda", dtype)
    with tf32(allowed), precision:
        measured = reference_taps(model.cuda(), pixels)
    for name, reference in expected.items():
        assert sqnr_db(reference, measured[name]) >= least, name


@pytest.mark.parametrize("variant", ["lite", "t"])
def test_a_compiled_model_on_the_gpu_is_the_cpu_s(variant: str) -> None:
    model = jittered(variant, image_size=224)
    pixels = random_pixels(2, 224)
    x = normalize(model, torch.from_numpy(pixels))
    with torch.no_grad(), tf32(False):
        expected = model(x).numpy()
        measured = torch.compile(model.cuda())(x.cuda()).cpu().numpy()
    assert sqnr_db(expected, measured) >= 95
