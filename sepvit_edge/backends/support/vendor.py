"""Patches of vendors' libraries: each is an entry of a table, `PATCHES`, beside the code it serves.

A patch lasts for one lowering. A test resolves every symbol in the installed version, and checks
that the test named by each entry exists.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch


@dataclass(frozen=True)
class VendorPatch:
    """A symbol of a vendor's library that is replaced while a model is lowered.

    Attributes
    ----------
    symbol : str
        ``"package.module:name"`` or ``"package.module:Class.method"``.
    version : str
        Distribution and version that the patch was last checked with, as ``"executorch 1.4.1"``.
    why : str
        What happens without it.
    test : str
        Test that fails where the patch no longer does its work, as ``"test_file.py::test_name"``;
        without the patch it tells whether the library still needs it.
    """

    symbol: str
    version: str
    why: str
    test: str

    def original(self) -> Any:
        """Return the library's own object."""
        owner, name = self._resolve()
        return getattr(owner, name)

    def replaced_by(self, replacement: Any) -> AbstractContextManager[Any]:
        """Return a context in which the replacement stands in for the library's object."""
        return patch.object(*self._resolve(), replacement)

    def _resolve(self) -> tuple[Any, str]:
        module, _, path = self.symbol.partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        return owner, name
