"""The report of licences: what is permissive, and that nothing is left out."""

from __future__ import annotations

from importlib.metadata import requires
from pathlib import Path

import licences
import pytest

PAGE = Path(licences.__file__).parent.parent / "docs" / "licences.md"


@pytest.mark.parametrize(
    ("licence", "permissive"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("Apache Software License", True),
        ("ISC License (ISCL)", True),
        ("GPL-2.0-or-later OR BSD-2-Clause", True),
        ("MPL-2.0 AND MIT", False),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", False),
        ("GPL-3.0", False),
        ("LicenseRef-NVIDIA-Proprietary", False),
        ("MIT with a clause against edge devices", False),
        ("not stated", False),
        ("", False),
    ],
)
def test_what_is_permissive(licence: str, permissive: bool) -> None:
    assert licences.is_permissive(licence) is permissive


def test_the_report_names_every_package_and_flags_what_is_not_permissive() -> None:
    found = licences.closure("sepvit-edge", frozenset({"sign"}))
    assert {"sepvit-edge", "numpy", "torch", "cryptography", "sympy"} <= set(found)
    assert "asyncssh" not in found and any("asyncssh" in line for line in requires("sepvit-edge"))
    text = "\n".join(licences.report(found))
    odd, _, rest = text.partition("## Permissive")
    assert all(f"| {name} " in text for name in found if name != "sepvit-edge")
    assert "| numpy " in rest and "| numpy " not in odd


def test_the_page_has_nothing_that_was_not_looked_at() -> None:
    text = PAGE.read_text("utf-8")
    assert "to be looked at" not in text and "| torch " in text
