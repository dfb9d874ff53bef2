"""Images in: folders of images, the built-in data sets, and the one preprocessing rule.

Nothing here needs torch.
"""

from .datasets import Dataset, Sample, content_digests, open_dataset, refuse_overlap, refuse_seen
from .preprocess import load_image, preprocess, to_rgb

__all__ = [
    "Dataset",
    "Sample",
    "content_digests",
    "load_image",
    "open_dataset",
    "preprocess",
    "refuse_overlap",
    "refuse_seen",
    "to_rgb",
]
