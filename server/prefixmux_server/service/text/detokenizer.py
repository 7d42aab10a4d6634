"""From the tokens of one output to its text, piece by piece."""

from __future__ import annotations

from prefixmux_server.service.text.byte_run import ByteRun
from prefixmux_server.service.text.text import TextCodec

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Tokens kept for what follows. Broken characters of at most 4 bytes are long over in so many.
CONTEXT = 6
WINDOW = 16


class Detokenizer:
    """The pieces of `push` and that of `end`, joined, are the text of all tokens. Never gives out
    half a character, nor what a later token may change.

    `_ids` is a window on the last tokens, the first of which are only context: decoders treat the
    start of a text in their own way. `_sent` characters of the window's text are out. A run of
    byte tokens waits outside, for it is text only if all of it is.
    """

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._settles = codec.decoding.settles
        self._ids: list[int] = []
        self._run = ByteRun()
        self._sent = 0
        self._partial = False

    @property
    def holding(self) -> bool:
        """Whether there are tokens whose text is not out."""
        return self._partial or bool(self._run.ids)

    def push(self, token_id: int) -> str:
        if self._codec.is_silent(token_id):
            return ""
        if (byte := self._codec.byte_of(token_id)) is not None or not self._settles:
            self._run.add(token_id, byte)
            return ""
        self._take_run()
        self._ids.append(token_id)
        text = self._codec.decode(self._ids)
        # Whatever bytes are missing of the last character, they show as one of these.
        self._partial = text.endswith(REPLACEMENT)
        end = len(text) - self._partial
        piece = text[self._sent : end]
        self._sent = max(end, self._sent)
        if len(self._ids) > WINDOW:
            self._shorten()
        return piece

    def end(self) -> str:
        """The rest, now that nothing follows."""
        self._take_run()
        self._partial = False
        return self._codec.decode(self._ids)[self._sent :]

    def ahead(self) -> str:
        """What the tokens that wait for others would be, were these the last. Text alone: bytes
        that are none are not counted."""
        return self._run.text if self._settles else self._codec.decode(self._run.ids)

    def _take_run(self) -> None:
        if self._run.ids:
            self._ids += self._run.ids
            self._run = ByteRun()

    def _shorten(self) -> None:
        """Unless the context would have no text: then the start's own rules could reach beyond."""
        text = self._codec.decode(self._ids[-CONTEXT:])
        if len(text) > self._partial:
            self._ids = self._ids[-CONTEXT:]
            self._sent = len(text) - self._partial
