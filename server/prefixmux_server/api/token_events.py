"""The events of a streamed `/generate`: `token`, then `done` or `error`.

Written without a schema's help: a token costs one line of JSON.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefixmux_server.api.http import problems, sse
from prefixmux_server.api.http.written import ASCII, written
from prefixmux_server.errors import PrefixmuxServerError
from prefixmux_server.service.generation.answer import Answer, TokenEvent


class TokenEvents:
    """`sse.Writer`. All JSON is ASCII: some readers take other characters for the end of a line."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def tokens(self, told: TokenEvent) -> Iterator[str]:
        fields = {
            "index": told.index,
            "text": told.text,
            "token_ids": told.token_ids,
            "logprobs": told.logprobs,
        }
        plain = told.logprobs is None
        return sse.event([ASCII(fields)] if plain else written(fields, ASCII), "token")

    def done(self, answer: Answer) -> Iterator[str]:
        return sse.event(written(answer, ASCII), "done")

    def error(self, error: PrefixmuxServerError) -> Iterator[str]:
        return sse.event([ASCII({"error": problems.detail(error, self._request_id)})], "error")
