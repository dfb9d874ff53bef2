"""The ways to evaluate: accuracy, dense tasks, every runtime at once, part by part."""
