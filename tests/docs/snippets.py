"""The code in the documentation: found in Markdown, run as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What documents call the server.
ADDRESS = "127.0.0.1:8000"
BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^>]*) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
NOT_RUN = re.compile(r"not run: \S.*")
SOON = re.compile(r"soon: \S.*")
SECONDS = 120
SOON_SECONDS = 5


@dataclass(frozen=True)
class Snippet:
    """`note` is the comment right above it: `not run: why` for one that nobody could run here,
    `soon: why` for one that finds what it looks for within a moment."""

    document: str
    line: int
    language: str
    code: str
    note: str

    @property
    def runs(self) -> bool:
        return self.language in ("sh", "python") and not NOT_RUN.fullmatch(self.note)

    @property
    def patience(self) -> float:
        """Seconds for which it may fail."""
        return SOON_SECONDS if SOON.fullmatch(self.note) else 0.0


def documents() -> list[str]:
    """By their paths in the repository."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def snippets(document: str) -> Iterator[Snippet]:
    text = (ROOT / document).read_text("utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        note = match["note"] or ""
        yield Snippet(document, line, match["language"], match["code"], note)


def run(snippet: Snippet, folder: Path, address: str) -> subprocess.CompletedProcess[str]:
    """In `folder`, against the server at `address`; each document has an `$OUT` of its own."""
    out = folder / "out" / Path(snippet.document).stem
    out.mkdir(parents=True, exist_ok=True)
    code = snippet.code.replace(ADDRESS, address)
    command = (
        ["bash", "-euo", "pipefail", "-c", code]
        if snippet.language == "sh"
        else [sys.executable, "-W", "error", "-c", code]
    )
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PREFIXMUX_BASE_URL": f"http://{address}",
        "OUT": str(out),
        "NO_COLOR": "1",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
