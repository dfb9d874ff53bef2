"""Training: recipes, data, and one loop for float and quantisation-aware models."""
