"""The claims of the paper (arXiv 2203.15380), a file each; `benchmarks/claims.py` runs them."""
