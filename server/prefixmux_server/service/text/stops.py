"""Finding stop strings in text that arrives in pieces, across the borders of tokens.

Knows nothing of tokens or tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """The text of one output on its way out: what may be the beginning of a stop string is held
    back until it turns out to be none. `found` is the stop string that ended the text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.found: str | None = None

    @property
    def holding(self) -> bool:
        return bool(self._held)

    def push(self, piece: str, *, passed: int = 0) -> str:
        """The text that is sure now; nothing may be pushed once a stop string is found.

        It is the first one that ends in this piece: that which begins earliest, of several that
        begin there the one asked for first. One that ends in the first `passed` characters of the
        piece is text.
        """
        text = self._held + piece
        if (match := self._match(piece, passed)) is not None:
            at, self.found = match
            self._held = ""
            return text[:at]
        keep = len(text) - self._beginning(text)
        self._held = text[keep:]
        return text[:keep]

    def finds(self, piece: str, *, passed: int = 0) -> bool:
        """Whether `push` would find one."""
        return self._match(piece, passed) is not None

    def end(self) -> str:
        """What was held back, now that nothing follows."""
        text, self._held = self._held, ""
        return text

    def _match(self, piece: str, passed: int) -> tuple[int, str] | None:
        """Where in what was held and the piece, and which."""
        if passed >= len(piece):
            return None
        text, start = self._held + piece, len(self._held) + passed
        found = [
            (at, order)
            for order, stop in enumerate(self._stops)
            if (at := text.find(stop, max(0, start - len(stop) + 1))) >= 0
        ]
        if not found:
            return None
        at, order = min(found)
        return at, self._stops[order]

    def _beginning(self, text: str) -> int:
        """The length of the longest end of `text` that a stop string begins with, and is longer."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            tail = text[-length:]
            if any(len(stop) > length and stop.startswith(tail) for stop in self._stops):
                return length
        return 0
