"""When silence becomes a kill, without a clock: the watch's looks follow each other at once."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from prefixmux_server.engine.link import EngineLink
from prefixmux_server.engine.messages import Ping
from prefixmux_server.engine.watch import LOOKS, Watch


class Patient:
    """A link whose engine answers so many pings and then falls silent."""

    def __init__(self, answers: int) -> None:
        self.watch = Watch(cast(EngineLink, self), hang_seconds=0.0)
        self.answers = answers
        self.pings = 0
        self.killed = 0
        self.was_unresponsive = False

    def send(self, ping: Ping) -> None:
        self.pings += 1
        if self.pings <= self.answers:
            self.watch.heard()

    def kill(self) -> None:
        self.killed += 1
        self.was_unresponsive = self.watch.unresponsive


@pytest.mark.parametrize("answers", [0, 1, 20])
def test_it_kills_at_the_first_ping_without_an_answer(answers: int) -> None:
    patient = Patient(answers)
    asyncio.run(patient.watch.run())
    assert patient.pings == answers + 1
    assert patient.killed == 1
    assert patient.was_unresponsive


def test_any_sign_of_life_counts() -> None:
    async def work() -> None:
        patient = Patient(0)
        watching = asyncio.create_task(patient.watch.run())
        for _ in range(20 * LOOKS):
            await asyncio.sleep(0)
            patient.watch.heard()
        assert patient.killed == 0
        assert not patient.watch.unresponsive
        await watching
        assert patient.killed == 1

    asyncio.run(work())
