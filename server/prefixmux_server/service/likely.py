"""Log-probabilities with the names they have on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prefixmux_server.engine.messages import TokenLogprobs
from prefixmux_server.service.text import TextCodec


def named(logprobs: Iterable[TokenLogprobs], codec: TextCodec | None) -> list[dict[str, Any]]:
    """`token` is each token's own text; None where the model has no tokenizer."""
    return [
        {
            **_entry(one.token_id, one.logprob, codec),
            "top": [_entry(likely.token_id, likely.logprob, codec) for likely in one.top],
        }
        for one in logprobs
    ]


def _entry(token_id: int, logprob: float, codec: TextCodec | None) -> dict[str, Any]:
    token = None if codec is None else codec.token_text(token_id)
    return {"token_id": token_id, "token": token, "logprob": logprob}
