"""The batch as it is now, as one tenant may see it: a row for each request under way.

Owns how long "now" is. Requests of other tenants are there, so that the batch can be seen whole,
but without id or task. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from prefixmux_server.engine.messages import StepOutput
from prefixmux_server.engine.record import StepRecord
from prefixmux_server.service.generation.admission import monotonic
from prefixmux_server.service.telemetry.flight import Flight, Trace

# What rates and means are taken over; the number bounds what fast steps may hold.
WINDOW_S = 2.0
STEPS_KEPT = 4096
# What one look may cost, however large the batch.
MAX_ROWS = 256


@dataclass(frozen=True)
class LiveRow:
    """One request that has its place in the batch; `task_id` null with `own`: the bare model.

    Tokens are those run so far, over all its outputs: a prompt that is not read yet is not there.
    """

    id: str | None
    task_id: str | None
    own: bool
    phase: Literal["prefill", "decode"]
    prefix_tokens: int
    prompt_tokens: int
    decode_tokens: int


@dataclass(frozen=True)
class LiveBatch:
    """Rates and means are those of the last two seconds, null or 0 without a step in them;
    `kv_used` is a part of 1; `more` rows run that are not listed."""

    step: int
    running: int
    waiting: int
    steps_per_second: float
    tokens_per_second: float
    rows_per_step: float | None
    tasks_per_step: float | None
    step_seconds: float | None
    kv_used: float | None
    rows: list[LiveRow]
    more: int


@dataclass(frozen=True, slots=True)
class _Told:
    """What is kept of a step."""

    at: float
    rows: int
    tasks: int
    tokens: int
    seconds: float


class Live:
    """Of one event loop; hears of each step after `flight` does. `capacity`: tokens of KV memory,
    None while no model is known."""

    def __init__(
        self,
        flight: Flight,
        capacity: Callable[[], int | None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._flight = flight
        self._capacity = capacity
        self._clock = clock
        self._recent: deque[_Told] = deque(maxlen=STEPS_KEPT)
        self._last: StepRecord | None = None

    def observe(self, output: StepOutput) -> None:
        record = output.record
        if record is None:
            return
        self._last = record
        tokens = sum(row.tokens for row in record.rows)
        self._recent.append(
            _Told(self._clock(), len(record.rows), self._flight.tasks, tokens, record.seconds)
        )

    def of(self, tenant: str) -> LiveBatch:
        since = self._clock() - WINDOW_S
        while self._recent and self._recent[0].at < since:
            self._recent.popleft()
        running, recent = self._flight.running, self._recent
        rows = [_row(id, trace, tenant) for id, trace in islice(self._flight.rows(), MAX_ROWS)]
        return LiveBatch(
            step=self._last.step if self._last else 0,
            running=running,
            waiting=self._flight.waiting,
            steps_per_second=len(recent) / WINDOW_S,
            tokens_per_second=sum(told.tokens for told in recent) / WINDOW_S,
            rows_per_step=_mean([told.rows for told in recent]),
            tasks_per_step=_mean([told.tasks for told in recent]),
            step_seconds=_mean([told.seconds for told in recent]),
            kv_used=self._kv_used(running),
            rows=rows,
            more=running - len(rows),
        )

    def _kv_used(self, running: int) -> float | None:
        """The last record tells of rows that may have gone since."""
        capacity = self._capacity()
        if not capacity:
            return None
        return self._last.kv_tokens / capacity if self._last and running else 0.0


def _row(id: str, trace: Trace, tenant: str) -> LiveRow:
    own = trace.tenant == tenant
    return LiveRow(
        id=id if own else None,
        task_id=trace.task_id if own else None,
        own=own,
        phase="decode" if trace.decode.steps else "prefill",
        prefix_tokens=trace.prefix_tokens,
        prompt_tokens=trace.prefill.tokens,
        decode_tokens=trace.decode.tokens,
    )


def _mean(values: list[int] | list[float]) -> float | None:
    return sum(values) / len(values) if values else None
