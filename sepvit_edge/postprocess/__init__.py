"""From raw outputs of dense models to class maps and boxes, the same bits in every language.

All arithmetic is float64 and made of additions, subtractions, products, quotients and comparisons,
each rounded once, in the order that the code has: no fused operations, and no functions of a
mathematical library, which differ between systems. Results are rounded to float32 once, at the end.
tests/vectors/README.md states the rule for the apps.
"""
