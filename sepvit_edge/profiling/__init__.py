"""Latency, and where the time goes."""
