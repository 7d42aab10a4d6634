"""Text to token ids and back, by the model's own fast tokenizer.

`TextCodec` is thread-safe and knows nothing of requests; what comes out piece by piece is
`detokenizer.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE

from prefixmux_server.engine.model_info import TokenizerInfo
from prefixmux_server.service.text.decoding import Decoding, decoding_of

BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


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
        self._texts: dict[int, str] = {}
        self.decoding: Decoding = decoding_of(self._tokenizer.decoder)
        self._most_bytes = _most_bytes(self._tokenizer, self.decoding)

    def least_tokens(self, text: str) -> int:
        """`text` has no fewer tokens than this, which costs nothing to know; 0: who knows."""
        if self._most_bytes is None:
            return 0
        return len(text.encode()) // self._most_bytes

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

    def token_text(self, token_id: int) -> str:
        """The token's own text, as it stands behind others: with its leading space, special ones
        by name. What is only a part of a character is U+FFFD, as decoding it alone gives."""
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._token_text(token_id)
        return text

    def piece(self, token_id: int) -> str:
        """The token as the vocabulary writes it; empty for padding of the table."""
        return self._tokenizer.id_to_token(token_id) or ""

    def is_silent(self, token_id: int) -> bool:
        """Whether the token adds nothing to any text: a special one or padding of the table."""
        return token_id in self._silent or self._tokenizer.id_to_token(token_id) is None

    def byte_of(self, token_id: int) -> int | None:
        """For a token that is one byte, whose text depends on the bytes around it."""
        if not self.decoding.byte_runs:
            return None
        match = BYTE.fullmatch(self._tokenizer.id_to_token(token_id) or "")
        return None if match is None else int(match[1], 16)

    def _token_text(self, token_id: int) -> str:
        if token_id in self._silent:
            return str(self._tokenizer.id_to_token(token_id))
        alone = self.decode([token_id])
        if self.decoding.joins_bytes or self.byte_of(token_id) is not None:
            return alone
        # Decoders treat the first token of a text in their own way.
        return self.decode([token_id, token_id])[len(alone) :]

    def _encoded(self, text: str, special: bool = True) -> Encoding:
        # The batch form lets other threads run meanwhile; `encode` would stop the event loop.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        return encoding


def _most_bytes(tokenizer: Tokenizer, decoding: Decoding) -> int | None:
    """Of a text that one token can stand for. None where tokens may swallow more than they say:
    by a normaliser, an unknown token, or the spaces around an added one."""
    model = tokenizer.model
    added = tokenizer.get_added_tokens_decoder().values()
    if (
        not isinstance(model, BPE)
        or not decoding.joins_bytes
        or tokenizer.normalizer is not None
        or model.unk_token is not None
        or any(token.lstrip or token.rstrip for token in added)
    ):
        return None
    # Pieces are written with one character for each byte, added tokens as they are.
    pieces = [len(piece) for piece in tokenizer.get_vocab(with_added_tokens=False)]
    return max([*pieces, *(len(token.content.encode()) for token in added)], default=None)


def _own(encoding: Encoding) -> slice:
    """Where the text's own tokens stand; those it spells out itself, special ones too, are own."""
    own = [at for at, added in enumerate(encoding.special_tokens_mask) if not added]
    return slice(own[0], own[-1] + 1) if own else slice(len(encoding.ids), 0)
