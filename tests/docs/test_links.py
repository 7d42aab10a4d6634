"""Links between documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs.snippets import ROOT

LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "demo/README.md"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for path, anchor in LINK.findall(document.read_text("utf-8")):
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor[1:] not in _anchors(target)):
            broken.append(f"{path}{anchor}")
    assert broken == []


def _anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
