"""JSON in pieces, for answers that would hold up every other request if written at one go.

The same values as one dump gives; knows nothing of HTTP and of what the values mean.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TypeAlias

from fastapi import Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from prefixmux_server.service.generation.likely import Logprobs, PromptLogprobs

MEDIA_TYPE = "application/json"
# The event loop is let go after so many characters: a millisecond's work, and not many more pieces
# than the socket would make of it.
PIECE = 32 * 1024
# Plain items of a list that are written together.
RUN = 2048

PLAIN = str | int | float | None

Encode: TypeAlias = Callable[[object], str]
UTF8: Encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
ASCII: Encode = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def written(value: object, encode: Encode = UTF8) -> Iterator[str]:
    """Dataclasses, mappings and models as objects, models whole; lists and iterators as arrays,
    each item when it is written."""
    if isinstance(value, Logprobs):
        yield from _array(_told(value, encode))
    elif is_dataclass(value):
        yield from written({one.name: getattr(value, one.name) for one in fields(value)}, encode)
    elif isinstance(value, BaseModel):
        yield encode(value.model_dump(mode="json"))
    elif isinstance(value, Mapping):
        yield from [encode(value)] if _is_flat(value) else _object(value.items(), encode)
    elif isinstance(value, list | tuple) and not _nested(value):
        runs = (value[start : start + RUN] for start in range(0, len(value), RUN))
        yield from _array([encode(run)[1:-1]] for run in runs)
    elif isinstance(value, list | tuple | Iterator):
        yield from _array(written(item, encode) for item in value)
    else:
        yield encode(value)


async def paced(texts: Iterable[str]) -> AsyncIterator[bytes]:
    """Joined to pieces of some size; others have their turn between them."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= PIECE:
            yield "".join(held).encode()
            held, size = [], 0
            await asyncio.sleep(0)
    if held:
        yield "".join(held).encode()


async def response(value: object) -> Response:
    """With its length where it is a single piece."""
    pieces = paced(written(value))
    first = await anext(pieces)
    async for second in pieces:
        return StreamingResponse(_behind((first, second), pieces), media_type=MEDIA_TYPE)
    return Response(first, media_type=MEDIA_TYPE)


async def _behind(first: Iterable[bytes], others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for piece in first:
        yield piece
    async for piece in others:
        yield piece


def _object(named: Iterable[tuple[str, object]], encode: Encode) -> Iterator[str]:
    before = "{"
    for name, value in named:
        yield f"{before}{encode(name)}:"
        yield from written(value, encode)
        before = ","
    yield "{}" if before == "{" else "}"


def _array(items: Iterable[Iterable[str]]) -> Iterator[str]:
    before = "["
    for item in items:
        yield before
        yield from item
        before = ","
    yield "[]" if before == "[" else "]"


def _is_flat(value: Mapping[str, object]) -> bool:
    return all(isinstance(one, PLAIN) for one in value.values())


def _nested(values: list[object] | tuple[object, ...]) -> bool:
    """Items are all of one kind, but for null."""
    return not all(isinstance(value, PLAIN) for value in values[:2])


def _told(logprobs: Logprobs, encode: Encode) -> Iterator[Iterable[str]]:
    """One text for each token: an answer may have a million entries."""
    heads: dict[int, str] = {}
    codec = logprobs.codec

    def entry(token_id: int, logprob: float) -> str:
        head = heads.get(token_id)
        if head is None:
            token = None if codec is None else codec.token_text(token_id)
            head = f'{{"token_id":{token_id},"token":{encode(token)},"logprob":'
            heads[token_id] = head
        return f"{head}{logprob!r}"

    if isinstance(logprobs, PromptLogprobs):
        yield ("null",)
    for ids, values in logprobs.rows():
        own, *top = map(entry, ids, values)
        likely = "},".join(top) + "}" if top else ""
        yield (f'{own},"top":[{likely}]}}',)
