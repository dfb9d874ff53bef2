"""The edge form: what reference.py computes, from the same state dict, for static-graph compilers.

Compilers differ in what they compute well, so there are several forms of the same function. A
`Form` (form.py) names one class for each part of the network; forms.py has the forms by name. Every
`forward` is a straight line for the units that it was written for. Three layouts of what flows
between the layers have a file each: rows.py, heads.py (rows, each attention head on its own) and
maps.py.

Each principle below has a number, and the number stands where it is applied. What each is worth is
measured by `python benchmarks/edge_form.py --principles`; docs/results/edge-form.md has the table.
How a new unit gets its form is in docs/development/edge-form.md.

Shapes: B images (static), n windows of M = ws * ws pixels an image, T = M or M + 1 tokens a window,
C channels, h heads of d = 32. The stream between parts is (rows, C): one row a pixel, images one
behind the other; with principle 11 it is (B, C, H, W).

1. Rank 4 at most, and a rank-2 stream. Core ML ends at rank 5 and several NPUs at 4; a window is
   cut by one rank-4 permutation because (ws, C) is contiguous and needs no axis of its own.
2. Everything is static. Shapes are Python integers when the graph is traced, so that no shape,
   gather or index arithmetic is left in it.
3. What does not depend on the input is computed once, when the form is made: window tokens after
   norm1 are a constant, concatenated; batch and scale are already in it.
4. Constant scales live in weights: 1 / sqrt(d) in q, 1 / (255 std) in the first convolution, the
   affine part of a LayerNorm that feeds one linear in that linear, "+ x" of the position encoding
   in its centre tap, PSA's shortcut as the identity added to the attention matrix.
5. q, k and v are three linears, and k is permuted straight to (d, T): slicing one fused product
   costs a copy on every runtime.
6. Attention is `bmm` of rank 3. XNNPACK expands the operands of rank-4 products, and OpenVINO
   2026.4.1 miscompiles `scaled_dot_product_attention` with one head.
7. The residual stays in window order through a block: two permutations a block, not four.
8. LayerNorm is the runtime's own where it has one. XNNPACK has none: there its means are products
   with a constant 1 / C, which keeps the model one delegate. Ethos-U adds up a row in 32-bit passes
   over all of it: there a softmax's sum is a product with ones as well, and a norm's square is a
   power: one table of 256 entries, where a product of a tensor with itself is three passes.
9. Where a permutation costs more than a product (Ethos-U), each head has its own linears: nothing
   is cut out of anything, and the heads' results stand side by side.
10. Ethos-U swaps two axes of three in one pass, and needs up to five for the inner two of four:
    there each row of windows is cut by its own permutation.
11. A unit that keeps a map as channels of (H, W) computes a linear as a 1 x 1 convolution of it,
    and transposes rows in front of each one and behind it (Rockchip, where rows whose number is not
    a multiple of 16 go to the CPU for that). There the stream is a map, or (B, C, n, M) within a
    block, and every linear is written as that convolution.
"""

from .form import Form
from .forms import FORMS, find_form
from .network import EdgeModel

__all__ = ["FORMS", "EdgeModel", "Form", "find_form"]
