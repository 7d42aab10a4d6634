"""Who runs in the next step, and on what memory. The engine asks; no model is known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from prefixmux_server.engine.batch import BatchRow
from prefixmux_server.engine.fit import Fit, Limits
from prefixmux_server.engine.messages import EngineError
from prefixmux_server.engine.prefetch import Prefetch
from prefixmux_server.engine.queue import FairQueue, Verdict
from prefixmux_server.engine.request import Request, Sequence
from prefixmux_server.engine.sampling.beams import BeamSearch
from prefixmux_server.memory.memory import KVMemory, PlacedPrefix, RowLease
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.residency import Residency


class Scheduler:
    """Owns the waiting and the running requests, and through them pins, placements and leases."""

    def __init__(
        self,
        memory: KVMemory,
        residency: Residency,
        limits: Limits,
        clock: Callable[[], float],
        eos: frozenset[int] = frozenset(),
    ) -> None:
        self.waiting = FairQueue()
        self.memory = memory
        self.residency = residency
        self.running: list[Request] = []
        self.refused: list[tuple[Request, EngineError]] = []
        self._limits = limits
        self._clock = clock
        self._eos = eos
        self._fit = Fit(memory, residency, limits)
        self._prefetch = Prefetch(self.waiting, residency, clock)
        self._held: Counter[str] = Counter()
        self._arrivals = 0
        self._verdict: Verdict | None = None
        self._unmoved: tuple[int, ...] | None = None

    def submit(self, request: Request) -> None:
        """Its prefixes start loading now, not when its turn comes."""
        error = self._fit.impossible(request)
        if error is not None:
            self.refused.append((request, error))
            return
        self._arrivals += 1
        self.waiting.push(request)
        self._prefetch.arrive(request)

    def admit(self) -> list[Request]:
        """Give rows to waiting requests, in the queue's order, while there is room.

        Returns those that now run; those that never can are in `take_refused`.
        """
        self._prefetch.update()
        self._count_rows()
        if self._unmoved == self._stamp():
            return []
        before = len(self.running)
        while len(self.waiting) and self._held.total() < self._limits.max_rows:
            if self.waiting.next_admissible(self._offer) is None:
                break
        # Who finds no room may be overtaken when the order has changed; all else takes an event.
        self._unmoved = None if self._verdict is Verdict.NO_ROOM else self._stamp()
        return self.running[before:]

    def schedule(self) -> list[BatchRow]:
        """All rows that decode first, then chunks of prompts, within one budget of tokens; of the
        prompts first those whose tenant has been given least.

        A request's encoder pass is whole and has a budget of its own; the first in the step has
        it whatever its length.
        """
        budget = encoding = self._limits.max_tokens
        telling = self._limits.max_told or budget
        rows: list[BatchRow] = []
        for request in sorted(self.running, key=self._turn):
            width, encoded = len(request.sequences), 0
            count = min(request.runnable, budget // width)
            if request.tells_prompt:
                count = min(count, telling)
            if not request.encoded:
                encoded = len(request.known.encoder)
                if encoded > encoding and encoding < self._limits.max_tokens:
                    continue
            if count:
                rows.append(BatchRow(request, count, encodes=bool(encoded)))
                budget -= count * width
                telling -= count if request.tells_prompt else 0
                encoding -= encoded
                if not request.in_prompt:
                    self.waiting.charge(request.submit.tenant, count * width)
        return rows

    def retire(self, request: Request) -> None:
        """Take a request out, wherever it is, and give back all that it holds."""
        if request in self.running:
            self.running.remove(request)
            self.memory.release(request.leases)
            for key in request.keys:
                self.residency.unplace(key)
        elif any(request is refused for refused, _ in self.refused):
            self.refused = [entry for entry in self.refused if entry[0] is not request]
        else:
            self.waiting.remove(request)
        self._prefetch.leave(request)

    def settle(self) -> None:
        """See to what is pinned by operators: requests that wait for memory come first."""
        self.residency.settle(load=not self._prefetch.short)

    def take_refused(self) -> list[tuple[Request, EngineError]]:
        refused, self.refused = self.refused, []
        return refused

    def check_integrity(self) -> None:
        self.memory.check_integrity()
        self.residency.check_integrity()
        self._prefetch.check_integrity()
        assert self.residency.references() == self._references(), "a prefix is held for nobody"
        self._count_rows()
        assert self._held.total() <= self._limits.max_rows, "more rows than allowed"
        for request in self.running:
            for lease in request.leases:
                held = tuple(prefix.kv.key for prefix in lease.prefixes)
                assert held == request.keys, "a row holds another request's prefix"
            request.check_integrity()

    def _references(self) -> dict[PrefixKey, tuple[int, int]]:
        """What the requests hold, as far as they know."""
        holding = [*self.running, *(request for request in self.waiting if request.pinned)]
        pins = Counter(key for request in holding for key in request.keys)
        users = Counter(key for request in self.running for key in request.keys)
        return {key: (count, users[key]) for key, count in pins.items()}

    def _turn(self, request: Request) -> tuple[bool, float]:
        """Rows that decode, then prompts, in an order that is fair to tenants."""
        if request.row.pending == 1 and request.encoded:
            return False, 0.0
        return True, self.waiting.served(request.submit.tenant)

    def _stamp(self) -> tuple[int, ...]:
        """As long as this is the same, requests that wait for their prefixes or for rows of their
        tenant have nothing new to hope for."""
        arrived, rows = self._arrivals, self._held.total()
        return self.residency.version, arrived, len(self.waiting), rows

    def _count_rows(self) -> None:
        self._held.clear()
        for request in self.running:
            self._held[request.submit.tenant] += request.rows

    def _offer(self, request: Request) -> Verdict:
        self._verdict = self._judge(request)
        return self._verdict

    def _judge(self, request: Request) -> Verdict:
        most = request.submit.share.max_running
        if most is not None and self._held[request.submit.tenant] + request.rows > most:
            return Verdict.ITS_LIMIT
        if not self._prefetch.insist(request):
            return Verdict.NOT_YET if self.residency.busy else Verdict.NO_ROOM
        if self._prefetch.loading(request):
            return Verdict.NOT_YET
        error = self._fit.failure(request)
        if error is None and request.prompt is None:
            error = self._fit.unfit(request)
        if error is not None:
            self._prefetch.leave(request)
            self.refused.append((request, error))
            return Verdict.TAKEN
        if self._held.total() + request.rows > self._limits.max_rows:
            return Verdict.NO_ROOM
        return self._give_rows(request)

    def _give_rows(self, request: Request) -> Verdict:
        leases = self._lease(request)
        if leases is None:
            return Verdict.NO_ROOM
        request.leases = leases
        runs = request.known.tokens[: request.needs.own]
        request.sequences = [Sequence(leases[0], list(runs))]
        sampling = request.submit.sampling
        if sampling.beams is not None:
            request.search = BeamSearch(sampling, request.searched_prompt, self._eos)
        request.admitted = self._clock()
        self.running.append(request)
        self._prefetch.admit(request)
        self._charge_begun(request, len(runs))
        return Verdict.TAKEN

    def _charge_begun(self, request: Request, prompt: int) -> None:
        """What it is given now: its prompt, and in each row its prefixes."""
        tenant = request.submit.tenant
        seen = sum(prefix.kv.size for prefix in request.leases[0].prefixes)
        self._held[tenant] += request.rows
        self.waiting.charge(tenant, request.rows * seen + prompt + len(request.known.encoder))

    def _lease(self, request: Request) -> tuple[RowLease, ...] | None:
        """Place its prefixes and reserve its tokens, or take nothing at all."""
        needs = request.needs
        placed: list[PlacedPrefix] = []
        for key in request.keys:
            prefix = self.residency.place(key)
            if prefix is None:
                break
            placed.append(prefix)
        if len(placed) == len(request.keys):
            while True:
                leases = self.memory.admit(placed, needs)
                if leases is not None:
                    return leases
                if not self.residency.reclaim():
                    break
        for prefix in placed:
            self.residency.unplace(prefix.kv.key)
        return None
