"""Quantisation: int8 layers for every runtime, full int8 for units without floats, calibration.

`scheme` and `full_int8` hold one scheme each; exports use both through `interface`.
"""
