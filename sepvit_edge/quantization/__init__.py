"""Quantisation: the scheme, one for units without floats, calibration, and training."""

from .calibration import calibrate
from .full_int8 import FullQuantization, calibrate_full
from .scheme import SCHEME, Calibration, Quantization, QuantizedLayer, apply_quantization

__all__ = [
    "SCHEME",
    "Calibration",
    "FullQuantization",
    "Quantization",
    "QuantizedLayer",
    "apply_quantization",
    "calibrate",
    "calibrate_full",
]
