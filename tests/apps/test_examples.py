"""The examples in docs/apps.md are those that CI compiles or runs."""

from __future__ import annotations

import re

import pytest
from helpers import REPOSITORY

# Where each example is; `docs` and `end` stand around its lines.
EXAMPLES = {
    "kotlin": "apps/android/example/src/main/kotlin/Example.kt",
    "swift": "apps/ios/example/Sources/Example/main.swift",
    "js": "apps/web/library/example.mjs",
}


@pytest.mark.parametrize("language", EXAMPLES)
def test_an_example_is_the_one_that_ci_takes(language: str) -> None:
    text = (REPOSITORY / "docs/apps.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"```{language}\n(.*?)```", text, re.S)
    source = (REPOSITORY / EXAMPLES[language]).read_text(encoding="utf-8")
    taken = source.split("// docs\n")[1].split("// end")[0]
    assert shown.strip() == taken.strip()
    assert len(shown.strip().splitlines()) <= 12
