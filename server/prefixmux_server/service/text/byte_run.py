"""Tokens of one byte each that follow one another: text if all of them are, else none of it."""

from __future__ import annotations

import codecs


class ByteRun:
    """`text` is what the bytes are if the run ends here; empty while they are no text."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text: str | None = ""

    @property
    def text(self) -> str:
        whole = self._text is not None and not self._utf8.getstate()[0]
        return self._text or "" if whole else ""

    def add(self, token_id: int, byte: int | None) -> None:
        """`byte` None: one that is not known."""
        self.ids.append(token_id)
        if self._text is None:
            return
        try:
            self._text += self._utf8.decode(b"\xff" if byte is None else bytes((byte,)))
        except UnicodeDecodeError:
            self._text = None
