"""The runner's own error."""


class Refusal(Exception):
    """The request cannot be carried out; the sentence says why."""
