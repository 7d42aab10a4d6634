"""The engine: `submit`, `abort`, `step`. Synchronous, in no process of its own, and the only
owner of scheduler, memory and model. It knows digests and tenants, never task names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from prefixmux_server.engine.deadlines import Deadlines
from prefixmux_server.engine.forward import Forward
from prefixmux_server.engine.growth import NOT_FINITE, Growth
from prefixmux_server.engine.messages import (
    EngineError,
    Finished,
    Pin,
    PromptLogprobs,
    ResidencyChange,
    ResidencyState,
    StepOutput,
    Submit,
    TokenDelta,
)
from prefixmux_server.engine.record import RowRecord, StepRecord
from prefixmux_server.engine.request import Request
from prefixmux_server.engine.sampling.choice import Said
from prefixmux_server.engine.scheduler import Scheduler
from prefixmux_server.memory.entries import State
from prefixmux_server.memory.prefix import PrefixKey


@dataclass
class _Events:
    """What happened to requests in one step, and to those aborted before it."""

    prompts: list[PromptLogprobs] = field(default_factory=list)
    deltas: list[TokenDelta] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)


class Engine:
    """`close` ends what the engine started; `step` must not be called after it."""

    def __init__(
        self,
        scheduler: Scheduler,
        forward: Forward,
        eos: frozenset[int],
        *,
        encodes: bool,
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._forward = forward
        self._growth = Growth(scheduler.memory, eos)
        self._encodes = encodes
        self._clock = clock
        self._requests: dict[str, Request] = {}
        self._deadlines = Deadlines()
        self._events = _Events()
        self._step = 0

    @property
    def has_work(self) -> bool:
        residency = self._scheduler.residency
        return bool(self._requests or self._events.finished or residency.unsettled)

    def submit(self, submit: Submit) -> None:
        """Queue a request. Its id must not be in use."""
        if submit.id in self._requests:
            raise ValueError("a request of this id is under way")
        request = Request(submit, self._clock(), encoded=not self._encodes)
        self._requests[submit.id] = request
        self._deadlines.add(request)
        self._scheduler.submit(request)

    def abort(self, request_id: str, index: int | None = None) -> None:
        """Forget a request and free its rows at once, or one of its outputs; what is unknown or
        has ended is ignored. Its last output gone, a request is over: nothing is said of it but
        how others ended by themselves, if any did."""
        request = self._requests.get(request_id)
        if request is None or (index is not None and index not in request.open):
            return
        if index is not None and len(request.open) > 1:
            self._growth.drop(request, index)
        elif index is not None and request.ends:
            self._finish(request)
        else:
            self._forget(request)

    def pin(self, pin: Pin) -> None:
        """Keep a prefix loaded from the next step on, or no longer."""
        key, residency = PrefixKey(pin.tenant, pin.digest), self._scheduler.residency
        if pin.pinned:
            residency.keep(key)
        else:
            residency.let_go(key)

    def step(self) -> StepOutput | None:
        """Run every row once. None: nothing could run and nothing happened."""
        self._scheduler.residency.collect()
        self._expire()
        started = tuple(request.started() for request in self._scheduler.admit())
        for request, error in self._scheduler.take_refused():
            del self._requests[request.submit.id]
            self._events.finished.append(request.finished(self._clock(), error=error))
        record = self._run()
        self._scheduler.settle()
        changes = self._residency_changes()
        events, self._events = self._events, _Events()
        if record is None and not events.finished and not changes:
            return None
        return StepOutput(
            record,
            tuple(events.deltas),
            tuple(events.finished),
            changes,
            started,
            tuple(events.prompts),
        )

    def check_integrity(self) -> None:
        """Raise AssertionError if any invariant of scheduler, memory or residency is broken."""
        self._scheduler.check_integrity()
        scheduler = self._scheduler
        held = len(scheduler.running) + len(scheduler.waiting) + len(scheduler.refused)
        assert held == len(self._requests), "a request is lost"

    def close(self) -> None:
        self._scheduler.residency.close()

    def _run(self) -> StepRecord | None:
        rows = self._scheduler.schedule()
        if not rows:
            return None
        record = self._record(tuple(row.record() for row in rows))
        result = self._forward.run(rows)
        for row in result.computed:
            self._growth.commit(row)
        for said in result.said:
            self._advance(said)
        for row, error in result.failed:
            self._finish(row.request, error)
        return replace(record, seconds=self._clock() - record.started)

    def _record(self, rows: tuple[RowRecord, ...]) -> StepRecord:
        """As the step begins; how long it takes is not known yet."""
        self._step += 1
        residency = self._scheduler.residency
        return StepRecord(
            self._step,
            rows,
            waiting=len(self._scheduler.waiting),
            seconds=0.0,
            started=self._clock(),
            kv_tokens=self._scheduler.memory.used_tokens,
            host_bytes=residency.host_bytes,
            device_bytes=residency.device_bytes,
        )

    def _advance(self, said: Said) -> None:
        """What the logits of one pass mean for its requests."""
        for row in said.broken:
            self._finish(row.request, NOT_FINITE)
        for row, logprobs in said.told.items():
            self._events.prompts.append(PromptLogprobs(row.request.submit.id, logprobs))
        for row, choices in said.chosen.items():
            deltas = self._growth.speak(row.request, choices)
            self._events.deltas += deltas
            self._settle(row.request, said_more=bool(deltas))
        for row, logits in said.scored.items():
            error = self._growth.branch(row.request, logits)
            self._settle(row.request, error, said_more=error is None)

    def _settle(
        self, request: Request, error: EngineError | None = None, *, said_more: bool
    ) -> None:
        if said_more and request.first_token is None:
            request.first_token = self._clock()
        if error is not None or not request.open:
            self._finish(request, error)

    def _finish(self, request: Request, error: EngineError | None = None) -> None:
        self._events.finished.append(request.finished(self._clock(), error=error))
        self._forget(request)

    def _forget(self, request: Request) -> None:
        del self._requests[request.submit.id]
        self._scheduler.retire(request)

    def _expire(self) -> None:
        for request in self._deadlines.passed(self._clock(), self._requests.values()):
            message = "the request's deadline passed before it was finished"
            self._finish(request, EngineError("deadline_exceeded", message))

    def _residency_changes(self) -> tuple[ResidencyChange, ...]:
        changes = self._scheduler.residency.drain_changes()
        return tuple(ResidencyChange(k.tenant, k.digest, _public(state)) for k, state in changes)


def _public(state: State | None) -> ResidencyState:
    if state is State.DEVICE:
        return "device"
    return "host" if state is State.HOST else "disk"
