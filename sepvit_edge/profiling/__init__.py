"""Measure packages on devices: latency, memory, heat, and where the time goes."""
