"""Reads the data folder: pairs (`pairs/NAME.SPLIT.jsonl.gz`) and plain text (`text/*.gz`).

Knows file formats only; which data belong to which task is said in `tasks.py`.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

PARAGRAPH_CHARACTERS = 600


@dataclass(frozen=True)
class Pair:
    """One example: `source` and the `target` that belongs to it."""

    source: str
    target: str


def read_pairs(data: Path, name: str, split: str) -> list[Pair]:
    """All pairs of a split, in file order. Raises FileNotFoundError."""
    path = data / "pairs" / f"{name}.{split}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Pair(row["src"], row["tgt"]) for row in rows]


def read_paragraphs(data: Path) -> list[str]:
    """The plain texts, cut at line ends into pieces of about `PARAGRAPH_CHARACTERS`."""
    pieces: list[str] = []
    for path in sorted((data / "text").glob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            pieces += _pieces(lines.read().splitlines())
    return pieces


def _pieces(lines: list[str]) -> list[str]:
    pieces: list[str] = []
    held: list[str] = []
    for line in lines:
        held.append(line.strip())
        if sum(map(len, held)) >= PARAGRAPH_CHARACTERS:
            pieces.append("\n".join(held).strip())
            held = []
    return [piece for piece in [*pieces, "\n".join(held).strip()] if piece]
