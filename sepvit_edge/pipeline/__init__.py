"""From a model to a package, and what is measured on it."""
