"""A hook of mkdocs: links from docs/ to other files of the repository.

They work as they are where the repository is browsed. On the site they lead to the repository
(`repo_url`); without one they become the file's path. A link to a missing file stays, so that
`mkdocs build --strict` fails on it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: object) -> str:
    """Return a page with its links out of docs/ changed."""
    docs = Path(config.docs_dir)
    repository, here = docs.parent, Path(page.file.abs_src_path).parent

    def lead(match: re.Match[str]) -> str:
        text, path, anchor = match.groups()
        target = (here / path).resolve()
        if target.is_relative_to(docs) or not target.exists():
            return match[0]
        name = target.relative_to(repository).as_posix()
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{name}{anchor or ''})"
        return f"`{name}`" if text in name else f"{text} (`{name}`)"

    return LINK.sub(lead, markdown)
