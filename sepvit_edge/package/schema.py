"""Schema versions of the manifest and of the profile document, and their published schemas.

Both documents state ``"schema_version": "major.minor"``. A reader opens every minor version of its
major and ignores keys that it does not know, at every level; it refuses another major. So a minor
version only adds keys that a reader may ignore. Anything else is a new major version: a removed
key, another meaning, a value that was not allowed. docs/package-format.md has the whole rule.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel

# At most four digits, no leading zero, ASCII only: every language reads the same numbers.
_NUMBER = "(0|[1-9][0-9]{0,3})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}")

Standing = Literal["readable", "newer", "older", "none"]


def version_pattern(supported: str) -> str:
    r"""Return the regular expression of the versions that a reader opens, for a JSON Schema.

    Examples
    --------
    >>> version_pattern("2.0")
    '^2\\.(0|[1-9][0-9]{0,3})$'
    """
    return rf"^{supported.split('.')[0]}\.{_NUMBER}$"


def standing(stated: object, supported: str) -> Standing:
    """Compare the version that a document states with the one that a reader supports.

    Parameters
    ----------
    stated : object
        The value of ``schema_version``, whatever its type. The number 1 is version 1; later
        versions are text.
    supported : str
        The reader's own version.

    Returns
    -------
    str
        ``"readable"`` for the same major; ``"newer"`` or ``"older"`` for another one; ``"none"``
        if `stated` is not a version.

    Examples
    --------
    >>> standing("2.7", "2.0"), standing("10.0", "2.0"), standing(1, "2.0"), standing("2", "2.0")
    ('readable', 'newer', 'older', 'none')
    """
    if isinstance(stated, int) and not isinstance(stated, bool) and stated == 1:
        return "older"
    match = _VERSION.fullmatch(stated) if isinstance(stated, str) else None
    if match is None:
        return "none"
    major, own = int(match[1]), int(supported.split(".")[0])
    return "readable" if major == own else "newer" if major > own else "older"


def published_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a document, open for the keys of later minor versions.

    The models forbid unknown keys, so that the code that writes a document cannot misspell one.
    """

    def opened(node: Any) -> Any:
        if isinstance(node, dict):
            closed = node.get("additionalProperties") is False
            kept = (
                item for item in node.items() if not (closed and item[0] == "additionalProperties")
            )
            return {key: opened(value) for key, value in kept}
        return [opened(value) for value in node] if isinstance(node, list) else node

    return opened(model.model_json_schema())
