"""What the guide shows, as written: only its addresses are those of the test."""

from __future__ import annotations

import re

from tests.web.services import HOUSE

THERE = "https://uploads.example.org"
HERE = "http://127.0.0.1:8000"


def shown(kind: str, *having: str, url: str) -> str:
    """The guide's one block of this kind with all these texts in it, with the service at `url`."""
    text = (HOUSE / "docs/guide.md").read_text()
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if all(each in block for each in having)]
    return str(block).replace(THERE, url).replace(HERE, url)
