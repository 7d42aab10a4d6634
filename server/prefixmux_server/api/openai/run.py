"""The way of all requests of OpenAI's clients: prompts at once, answered whole or in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from prefixmux_server.api.http import written
from prefixmux_server.api.http.presence import while_connected
from prefixmux_server.api.http.sse import streaming
from prefixmux_server.api.openai.schemas import CommonBody
from prefixmux_server.api.openai.stream import Chunks, together
from prefixmux_server.api.openai.writer import Writer
from prefixmux_server.api.services import Services
from prefixmux_server.errors import TokenizerUnavailable
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.generation.together import all_or_none
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_server.service.text.spelling import Spelling
from prefixmux_server.service.text.text import TextCodec

CHUNKS: dict[str, Any] = {
    "description": "With `stream`: chunks as server-sent events, then `[DONE]`, or an error.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


@dataclass(frozen=True)
class Run:
    """Of one request. A client that leaves takes all of it with it."""

    request: Request
    services: Services
    tenant: Tenant
    body: CommonBody

    async def answer(self, asked: Sequence[GenerationRequest], writer: Writer) -> Response:
        generation = self.services.generation
        if self.body.stream:
            return await self._streamed(asked, writer)
        work = all_or_none(generation.generate(self.tenant, one) for one in asked)
        answers = await while_connected(self.request, self.services.lifecycle, work)
        return await written.response(writer.whole(answers))

    async def _streamed(self, asked: Sequence[GenerationRequest], writer: Writer) -> Response:
        streams = [self.services.generation.stream(self.tenant, one) for one in asked]
        events = streams[0] if len(streams) == 1 else together(streams, self.body.n or 1)
        chunks = Chunks(
            writer,
            self.request.state.request_id,
            self.request.url.path,
            includes_usage=self.body.includes_usage,
        )
        return await streaming(self.request, self.services.lifecycle, events, chunks)


def spelling_of(codec: TextCodec | None) -> Spelling:
    """How to write tokens. Raises `TokenizerUnavailable`: OpenAI's answers are text."""
    if codec is None:
        raise TokenizerUnavailable(
            "This model has no tokenizer, so that it answers in token ids: use /generate."
        )
    return Spelling(codec)
