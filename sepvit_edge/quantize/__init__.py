"""Quantisation: the one scheme, post-training calibration, and quantisation-aware training."""

from .calibration import calibrate
from .scheme import SCHEME, Calibration, Quantization, QuantizedLayer, apply_quantization

__all__ = [
    "SCHEME",
    "Calibration",
    "Quantization",
    "QuantizedLayer",
    "apply_quantization",
    "calibrate",
]
