"""Dense prediction: the SepViT backbone under heads for segmentation and detection.

The paper's second half, with no runtime in mind. Module names give the state-dict keys of the
authors' backbone and of MMSegmentation's and MMDetection's necks and heads. The names below are
loaded when they are first used: a configuration is checked before torch is there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import HEADS as HEADS
    from .config import DenseConfig as DenseConfig
    from .config import DenseTask as DenseTask
    from .network import DenseModel as DenseModel
    from .network import count_macs as count_macs
    from .network import from_classifier as from_classifier
    from .network import with_dense_config as with_dense_config

_HOME = {
    "HEADS": "config",
    "DenseConfig": "config",
    "DenseModel": "network",
    "DenseTask": "config",
    "count_macs": "network",
    "from_classifier": "network",
    "with_dense_config": "network",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
