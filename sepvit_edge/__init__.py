"""SepViT-Edge: from a SepViT checkpoint to verified packages for edge runtimes.

The names below are loaded when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .starting import name_early_interrupts

name_early_interrupts()

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .checkpoints.files import load_checkpoint as load_checkpoint
    from .checkpoints.files import save_checkpoint as save_checkpoint
    from .errors import CheckFailed as CheckFailed
    from .errors import SepViTError as SepViTError
    from .model.create import create_model as create_model
    from .package.session import open_package as open_package
    from .pipeline.export import export_package as export_package

_HOME = {
    "CheckFailed": "errors",
    "SepViTError": "errors",
    "create_model": "model.create",
    "export_package": "pipeline.export",
    "load_checkpoint": "checkpoints.files",
    "open_package": "package.session",
    "save_checkpoint": "checkpoints.files",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
