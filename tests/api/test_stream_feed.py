"""What is kept for one reader, and how its source ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from service.fakes import likely

from prefixmux_server.api.http.feed import Feed
from prefixmux_server.errors import Draining
from prefixmux_server.service.generation.answer import Answer, TokenEvent
from prefixmux_server.service.generation.likely import Logprobs
from prefixmux_server.service.lifecycle import Lifecycle

pytestmark = pytest.mark.anyio


def told(index: int, text: str | None, *ids: int, logprob: bool = False) -> TokenEvent:
    logprobs = Logprobs(None)
    logprobs.take(likely(id, 2) for id in ids)
    return TokenEvent(index, text, list(ids), logprobs if logprob else None)


class Source:
    """Tells these, then nothing for ever; `ended` is what ended it."""

    def __init__(self, *events: TokenEvent) -> None:
        self._events = events
        self.silent = asyncio.Event()
        self.ended: BaseException | None = None

    async def events(self) -> AsyncGenerator[TokenEvent | Answer, None]:
        try:
            for event in self._events:
                yield event
            self.silent.set()
            await asyncio.Event().wait()
        except BaseException as error:
            self.ended = error
            raise


async def test_what_has_gathered_is_one_event_for_each_output() -> None:
    source = Source(told(0, "a", 1), told(1, "x", 9), told(0, "", 2), told(0, "b", 3, 4))
    feed = Feed(source.events(), Lifecycle())
    await source.silent.wait()
    assert feed.take() == [told(0, "ab", 1, 2, 3, 4), told(1, "x", 9)]
    assert feed.take() == []
    await feed.close()


async def test_log_probabilities_gather_and_no_text_stays_none() -> None:
    source = Source(told(0, None, 1, logprob=True), told(0, None, 2, logprob=True))
    feed = Feed(source.events(), Lifecycle())
    await source.silent.wait()
    assert feed.take() == [told(0, None, 1, 2, logprob=True)]
    await feed.close()


async def test_a_cut_ends_the_source_and_says_why() -> None:
    source, lifecycle = Source(told(0, "a", 1)), Lifecycle()
    feed = Feed(source.events(), lifecycle)
    await source.silent.wait()
    lifecycle.cut()
    while feed.end is None:
        await feed.news()
        feed.take()
    assert isinstance(feed.end, Draining)
    assert isinstance(source.ended, asyncio.CancelledError)
    assert source.ended.args == ("draining",)
    await feed.close()


async def test_who_closes_early_ends_the_source_without_a_reason() -> None:
    source = Source(told(0, "a", 1))
    feed = Feed(source.events(), Lifecycle())
    await source.silent.wait()
    await feed.close()
    assert isinstance(source.ended, asyncio.CancelledError)
    assert source.ended.args == ()
    assert feed.end is None


async def test_an_error_is_kept_for_the_reader() -> None:
    async def broken() -> AsyncGenerator[TokenEvent | Answer, None]:
        yield told(0, "a", 1)
        raise ZeroDivisionError

    feed = Feed(broken(), Lifecycle())
    while feed.end is None:
        await feed.news()
        taken = feed.take()
    assert taken == [told(0, "a", 1)]
    assert isinstance(feed.end, ZeroDivisionError)
    await feed.close()
