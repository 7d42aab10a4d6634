"""The log of steps: bounded, ordered, and numbered across restarts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prefixmux_server.engine.pipes.steplog import StepLog
from prefixmux_server.engine.record import RowRecord, StepRecord

RESTART = -1


def record(step: int, rows: int) -> StepRecord:
    return StepRecord(step, (RowRecord("r", "decode", 1, 0),) * rows, 0, 0.0)


@given(st.lists(st.integers(RESTART, 4), max_size=40), st.integers(-1, 60))
def test_it_keeps_the_last_ones_and_numbers_only_grow(events: list[int], since: int) -> None:
    log = StepLog(max_steps=8, max_rows=20)
    step = 0
    rows: list[int] = []
    for event in events:
        if event == RESTART:
            log.restart()
            step = 0
        else:
            step += 1
            rows.append(event)
            log.add(record(step, event))
    kept = [entry.step for entry in log.since(-1)]
    assert kept == sorted(set(kept))
    sizes = [len(entry.rows) for entry in log.since(-1)]
    assert sizes == rows[len(rows) - len(sizes) :]
    assert len(sizes) <= 8
    assert sum(sizes) <= 20
    dropped = rows[: len(rows) - len(sizes)]
    assert not dropped or len(sizes) == 8 or sum(sizes) + dropped[-1] > 20
    assert [entry.step for entry in log.since(since)] == [step for step in kept if step > since]
