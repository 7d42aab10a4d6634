"""What a refused request is told of when to come again."""

from __future__ import annotations

import pytest
from service.outcomes import finished

from prefixmux_server.engine.messages import StepOutput
from prefixmux_server.engine.record import StepRecord
from prefixmux_server.service.telemetry import pace
from prefixmux_server.service.telemetry.pace import Pace


@pytest.mark.parametrize(
    ("waiting", "seconds_each", "expected"),
    [(0, 1.0, 1), (10, 0.01, 1), (10, 1.0, 10), (1000, 0.0625, 63), (1000, 2.0, 120)],
)
def test_it_is_the_queue_at_the_pace_of_the_last_requests(
    monkeypatch: pytest.MonkeyPatch, waiting: int, seconds_each: float, expected: int
) -> None:
    now = 1000.0
    monkeypatch.setattr(pace, "monotonic", lambda: now)
    heard = Pace()
    assert heard.retry_after() == 1
    for n in range(100):
        now = 1000.0 + n * seconds_each
        heard.observe(finished(str(n), "eos"))
    heard.observe(StepOutput(StepRecord(1, (), waiting, 0.1)))
    assert heard.retry_after() == expected


def test_a_queue_that_stands_still_has_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(pace, "monotonic", lambda: now)
    heard = Pace()
    for id in ("one", "two"):
        heard.observe(finished(id, "eos"))
    heard.observe(StepOutput(StepRecord(1, (), 5, 0.1)))
    assert heard.retry_after() == 1
    now += 10
    assert heard.retry_after() == 50
