"""Event loops to run a test on, and engines to talk to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end, on each of the two loops that a server may use.

    Fails if it leaves a task behind.
    """
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    async def alone(work: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(60):
            await work
        await asyncio.sleep(0)  # a task cancelled last ends in the next turn of the loop
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(alone(work))

    return run
