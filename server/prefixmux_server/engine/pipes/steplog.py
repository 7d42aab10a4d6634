"""The last steps of the engine, as it told them itself, numbered across restarts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from prefixmux_server.engine.record import StepRecord

MAX_STEPS = 10_000
# Full batches reach this first. It keeps the log near 20 MB and, since every row is an object that
# the garbage collector walks, its pauses short.
MAX_ROWS = 100_000


class StepLog:
    """Bounded in steps and in rows. Numbers only grow, though a new engine counts from its own
    beginning again."""

    def __init__(self, max_steps: int = MAX_STEPS, max_rows: int = MAX_ROWS) -> None:
        self._records: deque[StepRecord] = deque()
        self._max_steps = max_steps
        self._max_rows = max_rows
        self._rows = 0
        self._offset = 0

    def add(self, record: StepRecord) -> None:
        self._records.append(replace(record, step=record.step + self._offset))
        self._rows += len(record.rows)
        while len(self._records) > self._max_steps or self._rows > self._max_rows:
            self._rows -= len(self._records.popleft().rows)

    def since(self, step: int) -> Sequence[StepRecord]:
        """The records kept whose number is above `step`, oldest first."""
        newest_first = takewhile(lambda record: record.step > step, reversed(self._records))
        return list(newest_first)[::-1]

    def restart(self) -> None:
        """The next records come from a new engine."""
        if self._records:
            self._offset = self._records[-1].step + 1
