"""The batch as one tenant sees it, told by steps as the engine tells them."""

from __future__ import annotations

from service.outcomes import outcome, row, started, step

from prefixmux_server.engine.messages import StepOutput
from prefixmux_server.service.telemetry.flight import Flight
from prefixmux_server.service.telemetry.live import MAX_ROWS, WINDOW_S, Live, LiveRow


class Batch:
    """Two requests of the tenant, one of another."""

    def __init__(self) -> None:
        self.now = 100.0
        self.flight = Flight()
        self.live = Live(self.flight, lambda: 1000, lambda: self.now)
        self.flight.begin("one", "default", "e2e")
        self.flight.begin("two", "default", None)
        self.flight.begin("foreign", "other", "secret")

    def tell(self, output: StepOutput) -> None:
        self.flight.observe(output)
        self.live.observe(output)


def test_nothing_runs_yet() -> None:
    found = Batch().live.of("default")
    assert (found.step, found.running, found.waiting, found.rows) == (0, 0, 3, [])
    assert found.rows_per_step is None and found.kv_used == 0


def test_rows_add_up_over_steps() -> None:
    batch = Batch()
    batch.tell(started("one", "two"))
    batch.tell(step(1, row("one", 5), row("two", 4)))
    batch.tell(step(2, row("one"), row("two", 2), kv_tokens=250))
    batch.tell(step(3, row("one"), row("two"), kv_tokens=250))
    found = batch.live.of("default")
    assert found.rows == [
        LiveRow("one", "e2e", True, "decode", 3, 5, 2),
        LiveRow("two", None, True, "decode", 3, 6, 1),
    ]
    assert (found.step, found.running, found.waiting, found.kv_used) == (3, 2, 1, 0.25)
    assert found.steps_per_second == 3 / WINDOW_S
    assert found.tokens_per_second == 14 / WINDOW_S
    assert (found.rows_per_step, found.tasks_per_step) == (2, 2)


def test_others_have_rows_without_names() -> None:
    batch = Batch()
    batch.tell(started("one", "foreign"))
    batch.tell(step(1, row("one", 5), row("foreign", 7)))
    mine, foreign = batch.live.of("default").rows
    assert mine.own
    assert foreign == LiveRow(None, None, False, "prefill", 3, 7, 0)
    assert [found.id for found in batch.live.of("other").rows] == [None, "foreign"]


def test_what_has_ended_is_gone_and_what_is_past_is_not_now() -> None:
    batch = Batch()
    batch.tell(started("one"))
    batch.tell(step(1, row("one", 5), kv_tokens=500))
    batch.flight.finished(outcome("one"))
    batch.now += WINDOW_S + 0.1
    found = batch.live.of("default")
    assert (found.rows, found.running, found.kv_used, found.step) == ([], 0, 0, 1)
    assert (found.steps_per_second, found.step_seconds) == (0, None)


def test_one_look_is_bounded() -> None:
    batch = Batch()
    names = [f"row{number}" for number in range(MAX_ROWS + 3)]
    for name in names:
        batch.flight.begin(name, "default", "e2e")
    batch.tell(started(*names))
    found = batch.live.of("default")
    assert (len(found.rows), found.more) == (MAX_ROWS, 3)
