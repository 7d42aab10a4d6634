"""The engine: `submit`, `abort`, `step`. Synchronous, in no process of its own, and the only
owner of scheduler, memory and model. It knows digests and tenants, never task names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from prefixmux_server.engine.batch import BatchRow
from prefixmux_server.engine.beams import NonFiniteLogits
from prefixmux_server.engine.forward import Forward, StepResult
from prefixmux_server.engine.messages import (
    EngineError,
    Finished,
    FinishReason,
    OutputEnd,
    Pin,
    ResidencyChange,
    ResidencyState,
    RowRecord,
    StepOutput,
    StepRecord,
    Submit,
    TokenDelta,
)
from prefixmux_server.engine.request import Request, Sequence
from prefixmux_server.engine.scheduler import Scheduler
from prefixmux_server.memory.memory import RowLease
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.residency import State


@dataclass
class _Events:
    """What happened to requests in one step."""

    deltas: list[TokenDelta]
    finished: list[Finished]


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
        self._memory = scheduler.memory
        self._encodes = encodes
        self._eos = eos
        self._clock = clock
        self._requests: dict[str, Request] = {}
        self._step = 0

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    def submit(self, submit: Submit) -> None:
        """Queue a request. Its id must not be in use."""
        if submit.id in self._requests:
            raise ValueError("a request of this id is under way")
        request = Request(submit, self._clock(), encoded=not self._encodes)
        self._requests[submit.id] = request
        self._scheduler.submit(request)

    def abort(self, request_id: str, index: int | None = None) -> None:
        """Forget a request and free its row at once; an unknown id is ignored."""
        if index:
            return
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._scheduler.retire(request)

    def pin(self, pin: Pin) -> None:
        """Keep a prefix loaded, or no longer."""
        key = PrefixKey(pin.tenant, pin.digest)
        if not pin.pinned:
            self._scheduler.residency.unpin(key)
        else:
            self._scheduler.residency.pin(key)

    def step(self) -> StepOutput | None:
        """Run every row once. None: nothing could run and nothing happened."""
        events = _Events([], [])
        self._scheduler.residency.collect()
        self._expire(events)
        started = tuple(request.started() for request in self._scheduler.admit())
        for request, error in self._scheduler.take_refused():
            del self._requests[request.submit.id]
            events.finished.append(request.finished(self._clock(), error=error))
        record = self._run(events)
        changes = self._residency_changes()
        if record is None and not events.finished and not changes:
            return None
        return StepOutput(record, tuple(events.deltas), tuple(events.finished), changes, started)

    def check_integrity(self) -> None:
        """Raise AssertionError if any invariant of scheduler, memory or residency is broken."""
        self._scheduler.check_integrity()
        held = len(self._scheduler.running) + len(self._scheduler.waiting)
        assert held == len(self._requests), "a request is lost"

    def close(self) -> None:
        self._scheduler.residency.close()

    def _run(self, events: _Events) -> StepRecord | None:
        rows = self._scheduler.schedule()
        if not rows:
            return None
        started = self._clock()
        records = tuple(row.record() for row in rows)
        result = self._forward.run(rows)
        self._advance(result, events)
        for row, error in result.failed:
            self._end(row.request, events, error=error)
        return self._record(records, self._clock() - started)

    def _record(self, rows: tuple[RowRecord, ...], seconds: float) -> StepRecord:
        self._step += 1
        return StepRecord(self._step, rows, len(self._scheduler.waiting), seconds)

    def _advance(self, result: StepResult, events: _Events) -> None:
        """Commit the step: KV that is stored counts from now on, and rows gain their tokens."""
        for row in result.computed:
            self._commit(row)
        for row, token in result.sampled:
            if token is None:
                self._end(row.request, events, error=_not_finite())
            else:
                self._append(row.request, token, events)
        for row, logits in result.scored:
            self._branch(row.request, logits, events)

    def _commit(self, row: BatchRow) -> None:
        """KV that is stored counts from now on; an infix gets what is added to it, once."""
        request = row.request
        request.encoded = True
        for sequence in request.sequences:
            sequence.computed += row.count
        virtual = request.known.virtual
        if virtual is None or virtual.delta is None or request.row.computed != virtual.stop:
            return
        self._memory.add(request.row.lease, virtual.start, virtual.delta)

    def _branch(self, request: Request, logits: Tensor, events: _Events) -> None:
        """One step of a beam search: each row goes on from the row that its parent was."""
        assert request.search is not None
        self._note_first_token(request)
        try:
            step = request.search.advance(logits)
        except NonFiniteLogits:
            self._end(request, events, error=_not_finite())
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's alone
            message = f"this request's beam search failed ({type(error).__name__})"
            self._end(request, events, error=EngineError("internal_error", message))
            return
        if step is None:
            self._finish(request, request.search.results()[0].reason, events)
            return
        parents = [request.sequences[parent] for parent in step.parents]
        leases = request.leases[: len(parents)]
        self._carry_over(request, leases, parents)
        request.sequences = [
            Sequence(lease, [*parent.tokens, token], parent.computed)
            for lease, parent, token in zip(leases, parents, step.tokens, strict=True)
        ]

    def _carry_over(
        self, request: Request, leases: tuple[RowLease, ...], parents: list[Sequence]
    ) -> None:
        """The prompt goes to all rows once, and after that to each what its parent has made."""
        prompt, computed = len(request.known.tokens), request.row.computed
        if computed == prompt:
            self._memory.fork(request.leases, range(prompt))
        else:
            sources = [parent.lease for parent in parents]
            self._memory.copy(leases, sources, range(prompt, computed))

    def _append(self, request: Request, token: int, events: _Events) -> None:
        self._note_first_token(request)
        request.row.tokens.append(token)
        events.deltas.append(TokenDelta(request.submit.id, (token,)))
        reason, stop = request.finish_reason(self._eos)
        if reason is not None:
            self._finish(request, reason, events, stop=stop)

    def _note_first_token(self, request: Request) -> None:
        if request.first_token is None:
            request.first_token = self._clock()

    def _finish(
        self, request: Request, reason: FinishReason, events: _Events, *, stop: int | None = None
    ) -> None:
        del self._requests[request.submit.id]
        events.finished.append(request.finished(self._clock(), (OutputEnd(0, reason, stop),)))
        self._scheduler.retire(request)

    def _end(self, request: Request, events: _Events, *, error: EngineError) -> None:
        del self._requests[request.submit.id]
        events.finished.append(request.finished(self._clock(), error=error))
        self._scheduler.retire(request)

    def _expire(self, events: _Events) -> None:
        now = self._clock()
        for request in list(self._requests.values()):
            deadline = request.submit.deadline
            if deadline is not None and now >= deadline:
                message = "the request's deadline passed before it was finished"
                self._end(request, events, error=EngineError("deadline_exceeded", message))

    def _residency_changes(self) -> tuple[ResidencyChange, ...]:
        changes = self._scheduler.residency.drain_changes()
        return tuple(ResidencyChange(k.tenant, k.digest, _public(state)) for k, state in changes)


def _not_finite() -> EngineError:
    return EngineError(
        "non_finite_output", "the model's output for this request is not finite; check its prefix"
    )


def _public(state: State | None) -> ResidencyState:
    if state is State.DEVICE:
        return "device"
    return "host" if state is State.HOST else "disk"
