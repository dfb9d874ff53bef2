"""SepViT-Edge: from a SepViT checkpoint to verified packages for edge runtimes.

The names below are loaded when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import export_package as export_package
    from .errors import CheckFailed as CheckFailed
    from .errors import SepViTError as SepViTError
    from .package import open_package as open_package
    from .reference import create_model as create_model
    from .weights import load_checkpoint as load_checkpoint
    from .weights import save_checkpoint as save_checkpoint

_HOME = {
    "CheckFailed": "errors",
    "SepViTError": "errors",
    "create_model": "reference",
    "export_package": "build",
    "load_checkpoint": "weights",
    "open_package": "package",
    "save_checkpoint": "weights",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
