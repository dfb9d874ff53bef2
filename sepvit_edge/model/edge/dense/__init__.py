"""The edge form of dense models: the units of rows.py on padded maps, necks and heads.

Beside the principles of the package, for static H x W and one image:

12. Padding and window tokens are zeros in front of norm1, so its bias behind it: rows of constants,
    concatenated after the norm. Nothing but attention sees them: a block's map is cropped before
    its projection.
13. Where one window is the whole map, PSA doubles it: the factor is in the projection's weights.
14. PSA's identity grows with the square of the windows: above 64 windows the pixels are added
    instead.
15. Nearest x 2 and the sum behind it are two additions that broadcast (FPN): no runtime needs a
    kernel for it.
16. Pooling to a few cells and resizing from them are products with constants (UperNet), written as
    linears of the transposed map: XNNPACK has linears with a constant, and not `bmm`.
17. Batch norm is in its convolution, ReLU is a part of it: one layer, one rounding in int8.
"""

from .network import DenseEdgeModel, dense_form
from .regions import RegionModel, region_models

__all__ = ["DenseEdgeModel", "RegionModel", "dense_form", "region_models"]
