"""Faults on purpose; see `__main__.py`."""
