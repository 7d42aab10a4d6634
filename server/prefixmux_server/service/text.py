"""Text to token ids and back, by the model's own fast tokenizer.

`TextCodec` is thread-safe and knows nothing of requests; a `Detokenizer` belongs to one output
and turns its tokens into text piece by piece, never giving out half a character.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

from prefixmux_server.engine.messages import TokenizerInfo

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# A character has at most 4 bytes, so at most 4 byte tokens: what is still broken then stays so.
MAX_HELD_TOKENS = 4


class TextCodec:
    """`encode` equals `tokenizer(text).input_ids`, `plain` the same without special tokens,
    `decode` equals its `decode` with `skip_special_tokens` and without clean-up of spaces.

    `opening(a) + following(b)` is one text in two pieces: the special tokens before `a` and those
    after `b`. A piece that has no tokens of its own is `()`.
    """

    def __init__(self, info: TokenizerInfo) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_str(info.json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._silent = frozenset(
            id for id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        )

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._encoded(text).ids)

    def plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._encoded(text, special=False).ids)

    def opening(self, text: str) -> tuple[int, ...]:
        encoding = self._encoded(text)
        return tuple(encoding.ids[: _own(encoding).stop])

    def following(self, text: str) -> tuple[int, ...]:
        encoding = self._encoded(text)
        return tuple(encoding.ids[_own(encoding).start :])

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def is_silent(self, token_id: int) -> bool:
        """Whether the token adds nothing to any text: a special one or padding of the table."""
        return token_id in self._silent or self._tokenizer.id_to_token(token_id) is None

    def _encoded(self, text: str, special: bool = True) -> Encoding:
        # The batch form lets other threads run meanwhile; `encode` would stop the event loop.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        return encoding


def _own(encoding: Encoding) -> slice:
    """Where the text's own tokens stand; those it spells out itself, special ones too, are own."""
    own = [at for at, added in enumerate(encoding.special_tokens_mask) if not added]
    return slice(own[0], own[-1] + 1) if own else slice(len(encoding.ids), 0)


class Detokenizer:
    """Incremental decoding. The pieces of `push` joined are the text of the tokens pushed, but
    for a character that is not complete yet.

    Only a short window is decoded each time: `_ids[:_read]` is context whose text `_before` is
    out already (decoders drop or add a space at the start), the rest is still held back.
    """

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._ids: list[int] = []
        self._read = 0
        self._before = ""

    def push(self, token_id: int) -> str:
        if self._codec.is_silent(token_id):
            return ""
        self._ids.append(token_id)
        text = self._codec.decode(self._ids)
        held = len(self._ids) - self._read
        if text.endswith(REPLACEMENT) and held < MAX_HELD_TOKENS:
            return ""
        piece = text[len(self._before) :]
        if piece:
            self._advance()
        return piece

    def _advance(self) -> None:
        self._ids = self._ids[self._read :]
        self._read = len(self._ids)
        self._before = self._codec.decode(self._ids)
