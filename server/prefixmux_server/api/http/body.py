"""Reading request bodies: bytes are counted as they come, JSON is parsed strictly.

`StrictRoute` gives its routes a `StrictRequest`; everything that can be wrong with the bytes is
found before the route's own types are looked at.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from prefixmux_server.api.http.tenancy import check_scopes
from prefixmux_server.errors import (
    BodyTooLarge,
    InvalidJson,
    InvalidRequest,
    UnsupportedMediaType,
)
from prefixmux_server.service.lifecycle import Lifecycle, draining

MAX_DEPTH = 32
# Far above any object of the contract: each unknown name would cost an error of its own.
MAX_FIELDS = 128
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
NO_BRACKETS = bytes(set(range(256)) - set(STEP))
# A body may take this long, and longer the larger it may be: a trickle holds nothing for ever.
GRACE_S = 60.0
MIN_BYTES_PER_S = 64 * 1024


def media_type(request: Request) -> str:
    """Of the body, without parameters; empty if the client named none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def refuse_encoding(request: Request) -> None:
    """Raises `UnsupportedMediaType`: a compressed body could grow without bound."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding.")


async def limited(
    request: Request, limit: int, too_large: Exception
) -> AsyncGenerator[bytes, None]:
    """The body's pieces. Raises `too_large` at the first byte past the limit, or before any if
    the client announces more."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_large
    received = 0
    async for piece in request.stream():
        received += len(piece)
        if received > limit:
            raise too_large
        yield piece


@asynccontextmanager
async def in_time(request: Request, limit: int) -> AsyncIterator[None]:
    """For reading a body of up to `limit` bytes. Raises `InvalidRequest` when it is too slow, and
    `Draining` when the drain has to end."""
    lifecycle: Lifecycle = request.app.state.services.lifecycle
    cutting = asyncio.ensure_future(lifecycle.until_cut())
    try:
        async with asyncio.timeout(GRACE_S + limit / MIN_BYTES_PER_S) as deadline:

            def cut(_: object) -> None:
                if not deadline.expired():
                    deadline.reschedule(0.0)

            cutting.add_done_callback(cut)
            try:
                yield
            finally:
                cutting.remove_done_callback(cut)
    except TimeoutError:
        if cutting.done():
            raise draining() from None
        raise InvalidRequest("The body took too long to arrive; send it again.") from None
    finally:
        cutting.cancel()


async def read(request: Request, limit: int, too_large: Exception) -> bytes:
    refuse_encoding(request)
    async with in_time(request, limit):
        return b"".join([piece async for piece in limited(request, limit, too_large)])


def too_large(limit: int) -> BodyTooLarge:
    """Of a JSON body."""
    return BodyTooLarge(f"The body has more than {limit} bytes; send less at once.")


def parse_json(raw: bytes) -> object:
    """Raises `InvalidJson`, also for what Python's parser lets pass: NaN, Infinity, a byte order
    mark, UTF-16, names given twice, depth; and `InvalidRequest` for an object of too many."""
    _check_depth(raw)
    try:
        return json.loads(
            raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_small_object
        )
    except UnicodeDecodeError:
        raise InvalidJson("The body is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise InvalidJson(
            "The body is not valid JSON; NaN, Infinity and names given twice are not."
        ) from None


def _check_depth(raw: bytes) -> None:
    """By brackets outside strings; whether they match is the parser's question."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    brackets = STRING.sub(b"", raw).translate(None, NO_BRACKETS)
    if max(accumulate(map(STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise InvalidJson(f"The body is nested deeper than {MAX_DEPTH}.")


def _no_constant(_: str) -> NoReturn:
    raise ValueError


def _small_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_FIELDS:
        raise InvalidRequest(f"An object of a request has at most {MAX_FIELDS} fields.")
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError
    return fields


class StrictRequest(Request):
    """A request whose JSON body has been read and parsed already."""

    async def load(self, limit: int) -> None:
        if media_type(self) not in ("", "application/json"):
            raise UnsupportedMediaType("Send the body as application/json.")
        self._raw = await read(Request(self.scope, self.receive), limit, too_large(limit))
        self._value = parse_json(self._raw)

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> object:
        return self._value


class StrictRoute(APIRoute):
    """For routes with a JSON body, which is read for those only who have the route's scope."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            check_scopes(self, request)
            loaded = StrictRequest(request.scope, request.receive)
            await loaded.load(request.app.state.services.max_body_bytes)
            return await handler(loaded)

        return strict
