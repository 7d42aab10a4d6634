"""A text as a prefix file: the token ids that it is for the resident model."""

from __future__ import annotations

from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.errors import InvalidRequest, TokenizerUnavailable
from prefixmux_server.service.prefixes.upload import PromptText
from prefixmux_server.service.text.text import TextCodec
from prefixmux_store.errors import InvalidPrefix
from prefixmux_store.format import BaseClaim, PrefixMeta, encode

# Kept beside the ids for people to read; the ids alone are the prefix.
MAX_KEPT_BYTES = 4096


def text_file(
    content: PromptText, codec: TextCodec | None, model: ModelInfo, max_prefix_tokens: int
) -> bytes:
    """The native file: ids of one tokenizer say nothing to another, so it claims its model.

    Raises `TokenizerUnavailable`, `InvalidRequest`, and `InvalidPrefix` too_long.
    """
    if codec is None:
        raise no_tokenizer(content)
    token_ids = codec.opening(content.text)
    if not token_ids:
        raise InvalidRequest("The text has no tokens; send some.", param=content.param)
    if len(token_ids) > max_prefix_tokens:
        raise InvalidPrefix(
            "too_long",
            f"The text has {len(token_ids)} tokens; {max_prefix_tokens} are allowed.",
            param=content.param,
        )
    kept = content.text if len(content.text.encode()) <= MAX_KEPT_BYTES else None
    base = BaseClaim(vocab=model.vocabulary, fingerprint=model.fingerprint)
    return encode({}, PrefixMeta(method="TEXT", base=base, token_ids=token_ids, text=kept))


def no_tokenizer(content: PromptText) -> TokenizerUnavailable:
    """Why there is no such file."""
    return TokenizerUnavailable(
        "This model has no tokenizer; upload a native TEXT file of token ids.",
        param=content.param,
    )
