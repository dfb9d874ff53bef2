"""The model: the paper's reference, its edge forms, and the traced graph."""
