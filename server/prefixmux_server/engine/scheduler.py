"""Who runs in the next step, and on what memory. The engine asks; no model is known here."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from prefixmux_server.engine.batch import BatchRow
from prefixmux_server.engine.messages import EngineError
from prefixmux_server.engine.queue import Verdict, WaitingQueue
from prefixmux_server.engine.request import Request, Sequence
from prefixmux_server.memory.layout import KVLayout, Lease, Segment
from prefixmux_server.memory.residency import Residency, State


@dataclass(frozen=True)
class Limits:
    """`context` is the number of positions the model has; None: no limit."""

    max_rows: int
    max_tokens: int
    context: int | None


@dataclass
class Scheduler:
    """Owns the waiting and the running requests, and through them pins, placements and leases."""

    waiting: WaitingQueue
    layout: KVLayout
    residency: Residency
    limits: Limits
    clock: Callable[[], float]
    running: list[Request] = field(default_factory=list)
    refused: list[tuple[Request, EngineError]] = field(default_factory=list)

    def submit(self, request: Request) -> None:
        """Its prefixes start loading now, not when its turn comes."""
        self.waiting.push(request)
        self._prefetch()

    def admit(self) -> list[Request]:
        """Give rows to waiting requests, in the queue's order, while there is room.

        Returns those that now run; those that never can are in `take_refused`.
        """
        self._prefetch()
        before = len(self.running)
        while len(self.running) < self.limits.max_rows:
            if self.waiting.next_admissible(self._offer) is None:
                break
        return self.running[before:]

    def schedule(self) -> list[BatchRow]:
        """All rows that decode first, then chunks of prompts, within one budget of tokens."""
        budget = self.limits.max_tokens
        rows: list[BatchRow] = []
        for request in sorted(self.running, key=lambda r: r.row.pending > 1):
            count = min(request.row.pending, budget)
            if count:
                rows.append(BatchRow(request, count))
                budget -= count
                self.waiting.charge(request.submit.tenant, count)
        return rows

    def retire(self, request: Request) -> None:
        """Take a request out, wherever it is, and give back all that it holds."""
        if request in self.running:
            self.running.remove(request)
            self.layout.release(request.row.lease)
            for key in request.keys:
                self.residency.unplace(key)
        else:
            self.waiting.remove(request)
        self._unpin(request)

    def take_refused(self) -> list[tuple[Request, EngineError]]:
        refused, self.refused = self.refused, []
        return refused

    def check_integrity(self) -> None:
        self.layout.check_integrity()
        self.residency.check_integrity()
        assert len(self.running) <= self.limits.max_rows, "more rows than allowed"
        for request in self.running:
            held = tuple(segment.key for segment in request.row.lease.segments)
            assert held == request.keys, "a row holds another request's prefix"
            assert request.row.pending >= 1, "a row has nothing to run"

    def _prefetch(self) -> None:
        """Pin waiting requests' prefixes in order; who finds no room lets nobody overtake."""
        waiting = list(self.waiting)
        for place, request in enumerate(waiting):
            if not request.pinned and not self._pin_before(request, waiting[place + 1 :]):
                return
            self._note_loading(request)

    def _pin_before(self, request: Request, behind: Seq[Request]) -> bool:
        """Who came later and is more urgent may find its room pinned by those behind it."""
        holders = [other for other in behind if other.pinned]
        while not self._pin(request):
            if not holders:
                return False
            self._unpin(holders.pop())
        return True

    def _pin(self, request: Request) -> bool:
        for done, key in enumerate(request.keys):
            if not self.residency.pin(key):
                for other in request.keys[:done]:
                    self.residency.unpin(other)
                return False
        request.pinned = True
        return True

    def _note_loading(self, request: Request) -> None:
        """When its prefixes were being read, as far as it had to wait for that."""
        loading = self._loading(request)
        if loading and request.load_started is None:
            request.load_started = self.clock()
        if not loading and request.load_ended is None:
            request.load_ended = self.clock()

    def _loading(self, request: Request) -> bool:
        return any(self.residency.state(key) is State.LOADING for key in request.keys)

    def _unpin(self, request: Request) -> None:
        if request.pinned:
            for key in request.keys:
                self.residency.unpin(key)
            request.pinned = False

    def _offer(self, request: Request) -> Verdict:
        error = self._impossible(request)
        if error is not None:
            return self._refuse(request, error)
        if not request.pinned:
            return Verdict.NO_ROOM
        if self._loading(request):
            return Verdict.NOT_YET
        error = self._too_large(request)
        if error is not None:
            return self._refuse(request, error)
        return self._give_row(request)

    def _refuse(self, request: Request, error: EngineError) -> Verdict:
        self._unpin(request)
        self.refused.append((request, error))
        return Verdict.TAKEN

    def _impossible(self, request: Request) -> EngineError | None:
        """Why this request can never run, as far as is known before its prefixes are loaded."""
        if not request.prompt_tokens or request.submit.sampling.max_new_tokens < 1:
            return EngineError("invalid_request", "a request needs a token, and asks for one")
        for key in request.keys:
            failure = self.residency.failure(key)
            if failure is not None:
                return EngineError(failure.code, failure.message)
        if self.residency.exceeds_budget(request.keys):
            return EngineError(
                "prefix_unavailable",
                "this task's prefix is larger than all memory for prefixes; "
                "start the server with a larger --prefix-host-bytes",
            )
        return None

    def _too_large(self, request: Request) -> EngineError | None:
        prefixes = [self.residency.get(key) for key in request.keys]
        tokens = sum(kv.tokens() for kv in prefixes)
        last = sum(kv.offset() for kv in prefixes) + request.reserve
        if self.limits.context is not None and last > self.limits.context:
            return EngineError(
                "prompt_too_long",
                f"prefix, input and max_new_tokens need {last} positions, "
                f"the model has {self.limits.context}: shorten the input or max_new_tokens",
            )
        if not self.layout.fits(tokens, request.reserve) or not self.residency.fits(prefixes):
            return EngineError(
                "prompt_too_long",
                f"prefix, input and max_new_tokens need {tokens + request.reserve} tokens of "
                f"KV memory, more than there is: shorten them, or start the server with a larger "
                "--kv-tokens",
            )
        return None

    def _give_row(self, request: Request) -> Verdict:
        lease = self._lease(request)
        if lease is None:
            return Verdict.NO_ROOM
        request.sequence = Sequence(lease, list(request.submit.input_ids))
        request.admitted = self.clock()
        self.running.append(request)
        return Verdict.TAKEN

    def _lease(self, request: Request) -> Lease | None:
        """Place its prefixes and reserve its tokens, or take nothing at all."""
        segments: list[Segment] = []
        for key in request.keys:
            placement = self.residency.place(key)
            if placement is None:
                break
            segments.append(Segment(placement))
        if len(segments) == len(request.keys):
            while True:
                lease = self.layout.admit(segments, request.reserve)
                if lease is not None:
                    return lease
                if not self.residency.reclaim():
                    break
        for segment in segments:
            self.residency.unplace(segment.key)
        return None
