"""Chunks as server-sent events, ended by `[DONE]`; and several prompts' streams as one.

A stream that fails ends with an error instead.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from pydantic import BaseModel

from prefixmux_server.api.http import sse
from prefixmux_server.api.openai import errors
from prefixmux_server.api.openai.writer import Writer
from prefixmux_server.errors import PrefixmuxServerError
from prefixmux_server.service.generation.answer import Answer, TokenEvent, Usage

DONE = "[DONE]"


class Chunks:
    """`sse.Writer`."""

    def __init__(self, writer: Writer, request_id: str, path: str, *, includes_usage: bool) -> None:
        self._writer = writer
        self._request_id = request_id
        self._path = path
        self._includes_usage = includes_usage

    def tokens(self, told: TokenEvent) -> Iterator[str]:
        for chunk in self._writer.gained(told):
            yield from _event(chunk)

    def done(self, answer: Answer) -> Iterator[str]:
        for chunk in self._writer.ended(answer):
            yield from _event(chunk)
        if self._includes_usage:
            yield from _event(self._writer.used(answer))
        yield from sse.event([DONE])

    def error(self, error: PrefixmuxServerError) -> Iterator[str]:
        return sse.event([json.dumps(errors.body(error, self._request_id, self._path))])


def _event(chunk: BaseModel) -> Iterator[str]:
    return sse.event([chunk.model_dump_json(ensure_ascii=True)])


async def together(streams: Sequence[sse.Events], outputs: int) -> sse.Events:
    """What all of them tell, as if it was one with so many `outputs` of each; the first error
    ends all, and has closed them when it is raised."""
    news: asyncio.Queue[tuple[int, TokenEvent | Answer | Exception]] = asyncio.Queue()
    tasks = [asyncio.create_task(_tell(news, place, one)) for place, one in enumerate(streams)]
    answers: dict[int, Answer] = {}
    words: tuple[object, ...] = ()
    try:
        while len(answers) < len(tasks):
            place, told = await news.get()
            if isinstance(told, Exception):
                raise told
            if isinstance(told, Answer):
                answers[place] = told
            else:
                yield replace(told, index=place * outputs + told.index)
    except asyncio.CancelledError as cancelled:
        words = cancelled.args
        raise
    finally:
        for task in tasks:
            task.cancel(*words)
        await asyncio.gather(*tasks, return_exceptions=True)
    yield _joined([answers[place] for place in range(len(tasks))], outputs)


async def _tell(
    news: asyncio.Queue[tuple[int, TokenEvent | Answer | Exception]],
    place: int,
    stream: sse.Events,
) -> None:
    try:
        async with aclosing(stream):
            async for told in stream:
                news.put_nowait((place, told))
    except Exception as error:  # noqa: BLE001 - raised by the one who reads
        news.put_nowait((place, error))


def _joined(answers: Sequence[Answer], outputs: int) -> Answer:
    used = [answer.usage for answer in answers]
    return replace(
        answers[0],
        outputs=[
            replace(output, index=place * outputs + output.index)
            for place, answer in enumerate(answers)
            for output in answer.outputs
        ],
        usage=Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in used),
            prefix_tokens=sum(usage.prefix_tokens for usage in used),
            generated_tokens=sum(usage.generated_tokens for usage in used),
        ),
    )
