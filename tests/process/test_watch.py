"""When a silent or a stuck engine is killed, without a clock: looks follow each other at once."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from prefixmux_server.engine.pipes.link import EngineLink
from prefixmux_server.engine.pipes.watch import BEATS, Watch


class Killed:
    """A link that can only be killed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def kill(self) -> None:
        self.calls.append("kill")


def watch_over(link: Killed) -> Watch:
    return Watch(cast(EngineLink, link), hang_seconds=0.0)


async def looks(watching: asyncio.Task[str], count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
        assert not watching.done()


def test_silence_is_first_told_and_then_ended() -> None:
    async def work() -> None:
        link = Killed()
        watch = watch_over(link)
        watching = asyncio.create_task(watch.run())
        while not watch.unresponsive:
            await looks(watching, 1)
        assert not link.calls
        assert "silent" in await watching
        assert link.calls == ["kill"]

    asyncio.run(work())


def test_any_sign_of_life_counts() -> None:
    async def work() -> None:
        link = Killed()
        watch = watch_over(link)
        watching = asyncio.create_task(watch.run())
        for _ in range(5):
            await looks(watching, BEATS)
            watch.heard()
            assert not watch.unresponsive
        await watching
        assert link.calls == ["kill"]

    asyncio.run(work())


def test_a_process_that_is_stuck_may_talk_as_it_likes() -> None:
    async def work() -> None:
        link = Killed()
        watch = Watch(cast(EngineLink, link), hang_seconds=1e-6)
        watching = asyncio.create_task(watch.run())
        watch.heard(busy=1.1e-6)
        assert "--hang-seconds" in await watching
        assert link.calls == ["kill"]

    asyncio.run(work())


@pytest.mark.parametrize("busy", [0.0, 29.0])
def test_a_long_step_is_no_stuck_one(busy: float) -> None:
    watch = Watch(cast(EngineLink, Killed()), hang_seconds=30.0)
    watch.heard(busy)
    assert watch.unresponsive == (busy > 15.0)
    watch.heard()
    assert not watch.unresponsive
