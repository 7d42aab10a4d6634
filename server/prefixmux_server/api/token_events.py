"""The events of a streamed `/generate`: `token`, then `done` or `error`.

Written without a schema's help: a token costs one line of JSON.
"""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from prefixmux_server.api import problems, sse
from prefixmux_server.errors import PrefixmuxServerError
from prefixmux_server.service.answer import Answer, TokenEvent

ANSWER = TypeAdapter(Answer)
ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class TokenEvents:
    """`sse.Writer`. All JSON is ASCII: some readers take other characters for the end of a line."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def tokens(self, told: TokenEvent) -> bytes:
        fields = {
            "index": told.index,
            "text": told.text,
            "token_ids": told.token_ids,
            "logprobs": told.logprobs,
        }
        return sse.event(ENCODER.encode(fields), "token")

    def done(self, answer: Answer) -> bytes:
        return sse.event(ANSWER.dump_json(answer, ensure_ascii=True).decode("ascii"), "done")

    def error(self, error: PrefixmuxServerError) -> bytes:
        return sse.event(
            ENCODER.encode({"error": problems.detail(error, self._request_id)}), "error"
        )
