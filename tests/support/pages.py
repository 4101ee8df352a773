"""The commands of a page of docs/: fenced blocks of sh, each with what a comment before it says of it."""

import re
from pathlib import Path
from typing import Final

_DOCS: Final = Path(__file__).parents[2] / "docs"
_BLOCK: Final = re.compile(r"(?:<!-- (?P<note>[^\n]*) -->\n)?```sh\n(?P<commands>.*?)```", re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """What each block of commands of a page says of itself (empty: nothing), and its commands."""
    text = (_DOCS / page).read_text("utf-8")
    return [(match["note"] or "", match["commands"]) for match in _BLOCK.finditer(text)]
