"""Streams as a server sends them, in pieces, and cut where a test says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import httpx2
from client.scripted import generation


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """Bytes in these pieces, then `failure`, if there is one. Remembers being closed."""

    def __init__(self, pieces: Iterable[bytes], failure: Exception | None = None) -> None:
        self._pieces = pieces
        self._failure = failure
        self.sent = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.sent += 1
            yield piece
        if self._failure is not None:
            raise self._failure

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Streaming:
    """A step that answers with a stream."""

    def __init__(
        self,
        *pieces: bytes,
        failure: Exception | None = None,
        content_type: str = "text/event-stream; charset=utf-8",
    ) -> None:
        self.body = Pieces(pieces, failure)
        self._headers = {"content-type": content_type, "x-request-id": "r-7"}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=self._headers, stream=self.body)


def event(name: str, data: object) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"event: {name}\ndata: {text}\n\n".encode()


def token(text: str | None, index: int = 0, ids: Iterable[int] = (5,)) -> bytes:
    data = {"index": index, "text": text, "token_ids": list(ids), "logprobs": None}
    return event("token", data)


def done(**fields: Any) -> bytes:
    return event("done", generation(**fields))


def error(code: str, **fields: object) -> bytes:
    body: Mapping[str, object] = {"code": code, "message": f"about {code}", "param": None}
    return event("error", {"error": {**body, **fields}})
