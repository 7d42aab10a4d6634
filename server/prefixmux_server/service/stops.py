"""Finding stop strings in text that arrives in pieces, across the borders of tokens.

Knows nothing of tokens or tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StopMatch:
    """`text` is everything before the stop string, which is `stop`."""

    text: str
    stop: str


class StopFinder:
    """The text of one output so far, free of any honoured stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._text = ""

    def push(self, piece: str, *, honoured: bool = True) -> StopMatch | None:
        """The first stop string that ends in this piece: the one that begins earliest, of
        several that begin there the one asked for first. With `honoured` False, none."""
        start = len(self._text)
        self._text += piece
        if not piece or not honoured:
            return None
        found = [
            (at, order)
            for order, stop in enumerate(self._stops)
            if (at := self._text.find(stop, max(0, start - len(stop) + 1))) >= 0
        ]
        if not found:
            return None
        at, order = min(found)
        return StopMatch(self._text[:at], self._stops[order])
