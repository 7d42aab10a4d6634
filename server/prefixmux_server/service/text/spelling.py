"""The bytes that tokens stand for, also those of a token that is only a part of a character.

Texts cannot say that: half a character is no text.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping

from prefixmux_server.service.text.text import TextCodec


class Spelling:
    """Of one tokenizer."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._bytes = _bytes_of_letters() if codec.decoding.joins_bytes else {}
        self._known: dict[int, bytes] = {}

    def of(self, token_id: int) -> bytes:
        """Of a special token its name."""
        spelled = self._known.get(token_id)
        if spelled is None:
            spelled = self._known[token_id] = self._of(token_id)
        return spelled

    def _of(self, token_id: int) -> bytes:
        codec, piece = self._codec, self._codec.piece(token_id)
        if (byte := codec.byte_of(token_id)) is not None:
            return bytes([byte])
        if piece and not codec.is_silent(token_id) and self._bytes.keys() >= set(piece):
            return bytes(self._bytes[letter] for letter in piece)
        return codec.token_text(token_id).encode()

    def adds(self, token_id: int) -> bytes:
        """What the token adds to a text: a special one nothing."""
        return b"" if self._codec.is_silent(token_id) else self.of(token_id)


class Place:
    """How many characters of a text are there before its next token; half ones do not count."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._read = 0

    def step(self, token_id: int) -> int:
        """Before this token, which is then behind."""
        before = self._read
        self._read += len(self._decoder.decode(self._spelling.adds(token_id)))
        return before


def _bytes_of_letters() -> Mapping[str, int]:
    """Byte-level tokenizers write a byte as a letter: as the one that it is in Latin-1 where that
    can be seen, else as the next one behind Latin-1."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in seen]
    letters = {chr(byte): byte for byte in seen}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}
