"""What a class name must be, so that every file and app shows it as one line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from ..errors import SepViTError

# Control characters (line feed, tab, NEL ...), line and paragraph separators, halves of characters.
_UNPRINTABLE = ("Cc", "Zl", "Zp", "Cs")
_BYTE_ORDER_MARK = "\ufeff"


def check_labels(labels: Iterable[object]) -> None:
    """Refuse labels that are not one line of text.

    Raises
    ------
    SepViTError
        If a label is not text, is blank, or holds a line break or another control character.
    """
    for number, label in enumerate(labels):
        if not isinstance(label, str):
            raise SepViTError(f"label {number} is {label!r}; labels are texts")
        if not label.strip():
            raise SepViTError(f"label {number} is empty; every class needs a name")
        if any(c == _BYTE_ORDER_MARK or unicodedata.category(c) in _UNPRINTABLE for c in label):
            raise SepViTError(
                f"label {number} is {label!a}, with a line break or another control character "
                "in it; write each label as one line of text"
            )
