"""The requests under way, by the engine's id, and what each step did for them.

Owned by the event loop. An id is here from its admission to its outcome, so that what is counted
here returns to nothing; trials of uploads are not requests and never here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prefixmux_server.engine.messages import FinishReason, StepOutput
from prefixmux_server.engine.record import RowRecord, StepRecord
from prefixmux_server.service.generation.outcome import Outcome


@dataclass(slots=True)
class Spread:
    """Of one figure over the steps of a phase."""

    least: int = 0
    most: int = 0
    total: int = 0

    def add(self, value: int) -> None:
        self.least = min(self.least or value, value)
        self.most = max(self.most, value)
        self.total += value


@dataclass(slots=True)
class Phase:
    """The steps that one request was in while it was in one phase. `began` and `ended` are in
    seconds of CLOCK_MONOTONIC, `seconds` is what those steps took together, whoever else was in
    them; `rows` and `tasks` are those of the whole batch."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    rows: Spread = field(default_factory=Spread)
    tasks: Spread = field(default_factory=Spread)
    last: int = -1

    def add(self, record: StepRecord, tasks: int) -> None:
        if not self.steps:
            self.began = record.started
        self.ended = record.started + record.seconds
        self.steps += 1
        self.seconds += record.seconds
        self.rows.add(len(record.rows))
        self.tasks.add(tasks)
        self.last = record.step


@dataclass(slots=True)
class Trace:
    """One request. `said` is when each of its outputs spoke last; `reason` is how the first of
    them ended, if the engine ended it."""

    tenant: str
    task_id: str | None
    running: bool = False
    prefill: Phase = field(default_factory=Phase)
    decode: Phase = field(default_factory=Phase)
    prefix_tokens: int = 0
    encoder_tokens: int = 0
    said: dict[int, float] = field(default_factory=dict)
    reason: FinishReason | None = None

    def phase(self, name: Literal["prefill", "decode"]) -> Phase:
        return self.prefill if name == "prefill" else self.decode


EndObserver = Callable[[Outcome, Trace | None], None]


class Flight:
    """`observe` and `finished` are its ears; `ends` are told each outcome with its trace, which is
    None for a request that was refused before it was admitted."""

    def __init__(self, ends: Sequence[EndObserver] = ()) -> None:
        self._open: dict[str, Trace] = {}
        self._tasks = 0
        self._ends = tuple(ends)

    @property
    def running(self) -> int:
        return sum(trace.running for trace in self._open.values())

    @property
    def waiting(self) -> int:
        return len(self._open) - self.running

    @property
    def tasks(self) -> int:
        """Different ones in the last step; the bare model is one more."""
        return self._tasks

    def begin(self, id: str, tenant: str, task_id: str | None) -> None:
        self._open[id] = Trace(tenant, task_id)

    def trace(self, id: str) -> Trace | None:
        return self._open.get(id)

    def rows(self) -> Iterator[tuple[str, Trace]]:
        """The requests that have rows, in the order in which they were admitted."""
        return ((id, trace) for id, trace in self._open.items() if trace.running)

    def observe(self, output: StepOutput) -> None:
        """Before others, who may ask for traces."""
        for started in output.started:
            if (trace := self._open.get(started.id)) is not None:
                trace.running = True
        if output.record is not None:
            self._step(output.record)
        for finished in output.finished:
            if (trace := self._open.get(finished.id)) is not None:
                trace.reason = finished.reason

    def finished(self, outcome: Outcome) -> None:
        trace = self._open.pop(outcome.id, None)
        for end in self._ends:
            end(outcome, trace)

    def _step(self, record: StepRecord) -> None:
        known = [
            (row, trace) for row in record.rows if (trace := self._open.get(row.id)) is not None
        ]
        self._tasks = len({(trace.tenant, trace.task_id) for _, trace in known})
        for row, trace in known:
            _add(trace, row, record, self._tasks)


def _add(trace: Trace, row: RowRecord, record: StepRecord, tasks: int) -> None:
    phase = trace.phase(row.phase)
    if phase.last != record.step:  # several rows of one request are in one step
        phase.add(record, tasks)
    phase.tokens += row.tokens
    trace.prefix_tokens = row.prefix_tokens
    trace.encoder_tokens += row.encoder_tokens
