"""Dense prediction: the SepViT backbone under heads for segmentation and detection.

The paper's second half, with no runtime in mind. Module names give the state-dict keys of the
authors' backbone and of MMSegmentation's and MMDetection's necks and heads.
"""

from .config import HEADS, DenseConfig, DenseTask
from .network import DenseModel, count_macs, from_classifier, with_dense_config

__all__ = [
    "HEADS",
    "DenseConfig",
    "DenseModel",
    "DenseTask",
    "count_macs",
    "from_classifier",
    "with_dense_config",
]
